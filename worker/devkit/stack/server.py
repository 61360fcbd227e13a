"""The common part of the embedded servers: one owner, a start within a time limit, a stop that leaves no process."""

from abc import ABC, abstractmethod
from pathlib import Path

from worker.devkit.stack.directory import Directory
from worker.devkit.stack.error import StackError
from worker.devkit.stack.process import Process, ticks

_START_LIMIT = 30.0  # seconds
_ATTEMPTS = 5
# Another process took the port just before the server; or children of a killed server have not ended yet.
_TEMPORARY_ERRORS = ("Address already in use", "pre-existing shared memory block")


class Server(ABC):
    def __init__(self, directory: Path, *, durable: bool = True) -> None:
        self._directory = Directory(directory)
        self._durable = durable
        self._process: Process | None = None
        self._port: int | None = None

    @property
    @abstractmethod
    def url(self) -> str: ...

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Start the server and wait until it answers. Raises StackError, and then leaves no process running."""
        if self._process and self._process.alive():
            return
        lock = self._directory.lock()
        try:
            self._prepare(lock)
            self._launch(lock)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if self._process:
            self._process.stop()
            self._process = None
        self._directory.unlock()

    def kill(self) -> None:
        """Send SIGKILL to the server and its children. The directory stays locked for another start()."""
        self._running().kill()

    def pause(self) -> None:
        """Send SIGSTOP to the server and its children. Connections stay open and get no response."""
        self._running().pause()

    def resume(self) -> None:
        self._running().resume()

    @abstractmethod
    def _prepare(self, lock: int) -> None: ...

    @abstractmethod
    def _command(self, port: int) -> list[str]: ...

    @abstractmethod
    def _ready(self, process: Process, port: int) -> bool: ...

    def _launch(self, lock: int) -> None:
        output = ""
        for _ in range(_ATTEMPTS):
            self._port = self._directory.port()
            self._process = Process(self._command(self._port), log=self._directory.log, lock=lock)
            if self._answers(self._process, self._port):
                return
            output = self._process.output()
            if not any(error in output for error in _TEMPORARY_ERRORS):
                break
            self._process.stop()
        raise StackError(f"{type(self).__name__} did not start. Its log ends with:\n{output[-2000:].strip()}")

    def _answers(self, process: Process, port: int) -> bool:
        for _ in ticks(_START_LIMIT):
            if not process.alive():
                return False
            if self._ready(process, port):
                return True
        return False

    def _running(self) -> Process:
        if self._process is None:
            raise StackError(f"{type(self).__name__} has not been started.")
        return self._process

    def _address(self) -> str:
        if self._port is None:
            raise StackError(f"{type(self).__name__} has not been started.")
        return f"{self._directory.password()}@127.0.0.1:{self._port}"
