"""A real Postgres below one directory, on loopback, behind a password. Never for production."""

import contextlib
import os
import shutil
from pathlib import Path

from worker.devkit.stack import privilege, programs
from worker.devkit.stack.error import StackError
from worker.devkit.stack.process import Process
from worker.devkit.stack.server import Server

_INITDB_LIMIT = 60.0  # seconds
_READY_LINE = 7  # of postmaster.pid, counted from 0
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # No statements, parameters or DETAIL lines, because rows and bound values must never be copied into the log.
    "log_statement": "none",
    "log_min_error_statement": "panic",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
    # Below the data directory. /dev/shm is small in containers, and files of a killed server would remain there.
    "dynamic_shared_memory_type": "mmap",
}
# Safe against kill -9, not against a power cut. synchronous_commit stays on, so that a commit waits for its write.
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class PostgresServer(Server):
    def __init__(self, directory: Path, *, durable: bool = True) -> None:
        super().__init__(directory, durable=durable)
        self._data = self._directory.path / "data"
        self._programs: programs.PostgresPrograms | None = None
        self._prefix: list[str] = []

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://app:{self._address()}/app"

    def _prepare(self, lock: int) -> None:
        found = programs.find_postgres()
        rights = privilege.reduced(self._directory.path)
        self._prefix = list(rights.prefix)
        self._directory.password()
        if rights.stranger:
            found = self._copied(found)
            privilege.hand_over(self._directory.path)
        self._programs = found
        if not self._data.exists():
            self._initialise(found, lock)

    def _copied(self, found: programs.PostgresPrograms) -> programs.PostgresPrograms:
        """Copies of the programs, laid out as in the wheel, because they find their libraries by a relative path."""
        if found.wheel is None:
            return found
        copies = self._directory.path / "programs"
        shutil.rmtree(copies, ignore_errors=True)
        for folder in (found.wheel / "pginstall", found.wheel.with_name(f"{found.wheel.name}.libs")):
            if folder.exists():
                shutil.copytree(folder, copies / folder.relative_to(found.wheel.parent), symlinks=True)
        return programs.postgres_in(copies / found.wheel.name)

    def _initialise(self, found: programs.PostgresPrograms, lock: int) -> None:
        """Make the cluster under another name until it is complete, so that an interrupted start leaves none."""
        new = self._data.with_name("data.new")
        shutil.rmtree(new, ignore_errors=True)
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums"]
        if not self._durable:
            options.append("--no-sync")
        password = self._directory.path / "password"
        self._run([str(found.initdb), "-D", str(new), "-U", "app", f"--pwfile={password}", *options], lock)
        single = [str(found.postgres), "--single", "-D", str(new), "-c", "exit_on_error=on", "postgres"]
        self._run(single, lock, stdin=b"CREATE DATABASE app\n")
        new.rename(self._data)

    def _run(self, argv: list[str], lock: int, stdin: bytes = b"") -> None:
        readable, writable = os.pipe()
        os.write(writable, stdin)
        os.close(writable)
        try:
            process = Process([*self._prefix, *argv], log=self._directory.log, lock=lock, stdin=readable)
        finally:
            os.close(readable)
        try:
            status = process.wait(_INITDB_LIMIT)
        finally:
            process.kill()
        if status != 0:
            raise StackError(f"Postgres could not create its cluster:\n{process.output()[-2000:].strip()}")

    def _command(self, port: int) -> list[str]:
        assert self._programs is not None
        settings = _SETTINGS if self._durable else _SETTINGS | _NOT_DURABLE
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [*self._prefix, str(self._programs.postgres), "-D", str(self._data), "-p", str(port), *options]

    def _ready(self, process: Process, port: int) -> bool:
        """The condition that pg_ctl waits for. The file names the process, so another server on the port is not it."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            ready = [line.strip() for line in lines[_READY_LINE:]] == ["ready"]
            return ready and lines[0] == str(process.pid)
        return False
