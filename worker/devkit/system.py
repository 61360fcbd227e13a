"""The whole system on one machine: stores, emulator, worker, beat and Flower, up within seconds and gone without trace.

What the environment already names is used instead: stores by WORKER_DATABASE_URL and WORKER_REDIS_URL, a real app
registration by WORKER_CLIENT_ID.
"""

import os
import secrets
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.bootstrap import Services, bootstrap
from worker.celery import Worker
from worker.db import schema
from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Emulator, EmulatorServer
from worker.devkit.stack import Stack, StackError
from worker.devkit.stack.process import Process
from worker.domain.credential import Grant, Secret
from worker.settings import Settings, adopt, given, load
from worker.vault import generate_key

_FLOWER_PORT = 5555
_READY = 30.0  # seconds
_STORES = ("WORKER_DATABASE_URL", "WORKER_REDIS_URL")


class System:
    """Everything, as a context manager. Without a directory its data is temporary and removed at the end."""

    services: Services

    def __init__(self, directory: Path | None, *, access_token_lifetime: tuple[timedelta, timedelta]) -> None:
        self._temporary = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="token-worker-"))
        self._lifetime = access_token_lifetime
        self.emulator: Emulator | None = None
        self.flower_url = ""
        self.flower_login = f"flower:{secrets.token_urlsafe(9)}"
        self._processes: dict[str, Process] = {}
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            if self._temporary:
                undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            environment = {**self._stores(undo), **self._registration(undo), **self._encryption_keys()}
            adopt({"WORKER_SWEEP_INTERVAL": "2", "WORKER_LOG_FORMAT": "json", **environment, **given()})
            self._write_environment()
            schema.upgrade()
            self.services = bootstrap(load(Settings))
            undo.callback(self.services.close)
            self._start_processes(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ValueError):  # not the main thread: then nobody interrupts us anyway
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not stop the tidying half-way
        self._undo.close()

    def enrol(self, mailboxes: int) -> list[str]:
        """Sign mailboxes in at the emulator and store their grants. Returns the addresses."""
        if self.emulator is None:
            return []
        emails = [f"user{number:02}@contoso.test" for number in range(1, mailboxes + 1)]
        granted = [self.emulator.enrol(email) for email in emails]
        now = self.emulator.clock()
        self.services.credentials.save(
            [
                Grant(
                    email=grant.email,
                    refresh_token=Secret(grant.refresh_token),
                    access_token=Secret(grant.access_token),
                    expires_at=now + timedelta(seconds=grant.expires_in),
                )
                for grant in granted
            ]
        )
        return emails

    def dead(self) -> list[str]:
        """The processes that should be running and are not."""
        return [name for name, process in self._processes.items() if not process.alive()]

    def _stores(self, undo: ExitStack) -> dict[str, str]:
        named = [name for name in _STORES if name in given()]
        if len(named) == len(_STORES):
            return {}
        if named:
            msg = f"{named[0]} is set, but not {next(iter(set(_STORES) - set(named)))}; set both, or neither"
            raise StackError(msg)
        stack = undo.enter_context(Stack(self.directory / "stores"))
        return dict(zip(_STORES, (stack.database_url, stack.redis_url), strict=True))

    def _registration(self, undo: ExitStack) -> dict[str, str]:
        if "WORKER_CLIENT_ID" in given():
            return {}
        self.emulator = Emulator(access_token_lifetime=self._lifetime)
        server = undo.enter_context(EmulatorServer(self.directory, self.emulator))
        return {
            "WORKER_CLIENT_ID": DEFAULT_CLIENT_ID,
            "WORKER_CLIENT_SECRET": DEFAULT_CLIENT_SECRET,
            "WORKER_AUTHORITY": server.authority,
            "WORKER_CA_BUNDLE": str(server.ca_bundle),
        }

    @property
    def environment_file(self) -> Path:
        """Shell lines that let other commands talk to this system."""
        return self.directory / "env"

    def _write_environment(self) -> None:
        self.environment_file.unlink(missing_ok=True)
        self.environment_file.touch(mode=0o600)
        lines = (f"export {name}={shlex.quote(value)}\n" for name, value in sorted(given().items()))
        self.environment_file.write_text("".join(lines))

    def _encryption_keys(self) -> dict[str, str]:
        kept = self.directory / "encryption-keys"
        if not kept.exists():
            kept.touch(mode=0o600)
            kept.write_text(generate_key("local"))
        return {"WORKER_ENCRYPTION_KEYS": kept.read_text()}

    def _start_processes(self, undo: ExitStack) -> None:
        port = _free_port(_FLOWER_PORT)
        self.flower_url = f"http://127.0.0.1:{port}/"
        flower = {"FLOWER_PORT": str(port), "FLOWER_ADDRESS": "127.0.0.1", "FLOWER_BASIC_AUTH": self.flower_login}
        for name, arguments, environment in (
            ("worker", ["worker", "--concurrency", "2", "--hostname", "worker@%h"], {}),
            ("beat", ["beat"], {}),
            ("flower", ["flower"], flower),
        ):
            argv = [sys.executable, "-m", "celery", "-A", "worker", *arguments]
            log = self.directory / f"{name}.log"
            process = Process(argv, log=log, environment={**os.environ, **environment})
            undo.callback(process.stop)
            self._processes[name] = process
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        app = Worker()
        end = time.monotonic() + _READY
        while not app.control.ping(timeout=0.5):
            if self.dead() or time.monotonic() > end:
                name = next(iter(self.dead()), "worker")
                msg = f"the {name} did not start. Its log ends with:\n{self._processes[name].output()[-2000:]}"
                raise StackError(msg)


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    msg = "no free port on 127.0.0.1"
    raise StackError(msg)
