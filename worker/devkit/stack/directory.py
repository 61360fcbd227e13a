"""The directory of one server: its lock, its password, its port and its log.

A second owner gets an error as long as the first one, or a server of the first one, is running.
"""

import contextlib
import fcntl
import os
import secrets
import socket
from pathlib import Path

from worker.devkit.stack import keeper
from worker.devkit.stack.error import StackError
from worker.devkit.stack.process import ticks

# Below the ephemeral ports of every system. On an ephemeral port a client that retries while the server is stopped may
# connect to itself, and then the server cannot bind the port again.
_PORTS = range(15_000, 32_000)
_KILL_DELAY = 0.5  # seconds; kill -9 returns before the process has ended
_SHUTDOWN_LIMIT = 20.0  # seconds


class Directory:
    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.log = self.path / "server.log"
        self._lock: int | None = None

    def lock(self) -> int:
        """The descriptor that holds the lock. Raises StackError if another process holds it."""
        if self._lock is None:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._acquire(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            self._lock = descriptor
        return self._lock

    def unlock(self) -> None:
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = None

    def password(self) -> str:
        file = self.path / "password"
        if not file.exists():
            self.write_private(file, secrets.token_urlsafe(24))
        return file.read_text()

    def port(self) -> int:
        """The port of the last start if it is free, else another one. Remembers it for the next start."""
        file = self.path / "port"
        remembered = int(file.read_text()) if file.exists() else _some_port()
        port = next(port for port in _candidates(remembered) if _free(port))
        self.write_private(file, str(port))
        return port

    def write_private(self, file: Path, content: str) -> None:
        """Replace the file in one step. Other users can never read it."""
        new = file.with_name(file.name + ".new")
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as output:
            output.write(content)
        new.replace(file)

    def _acquire(self, descriptor: int) -> None:
        if not _locked(descriptor, _KILL_DELAY):
            owner = os.pread(descriptor, 20, 0).decode()
            if owner and keeper.exists(int(owner)):
                raise self._in_use(f"process {owner}")
            # The servers of an owner that has ended are about to end, and hold the lock until then.
            if not _locked(descriptor, _SHUTDOWN_LIMIT):
                raise self._in_use("a server that does not end")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)

    def _in_use(self, by: str) -> StackError:
        return StackError(f"{self.path} is in use by {by}: stop it or choose another directory.")


def _locked(descriptor: int, seconds: float) -> bool:
    for _ in ticks(seconds):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def _candidates(first: int) -> list[int]:
    return [first, *(_some_port() for _ in range(50))]


def _some_port() -> int:
    return secrets.choice(_PORTS)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
