"""Real Postgres and Valkey for development, demo and tests. They listen on loopback and end with their process."""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.devkit.stack.error import StackError
from worker.devkit.stack.postgres import PostgresServer
from worker.devkit.stack.valkey import ValkeyServer

__all__ = ["PostgresServer", "Stack", "StackError", "ValkeyServer"]


class Stack:
    """Both servers, with their data below one directory. The default is a temporary one, removed at the end."""

    def __init__(self, directory: Path | None = None, *, durable: bool = True) -> None:
        self._temporary = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="token-worker-"))
        self.postgres = PostgresServer(self.directory / "postgres", durable=durable)
        self.valkey = ValkeyServer(self.directory / "valkey", durable=durable)
        self._undo = ExitStack()

    @property
    def database_url(self) -> str:
        return self.postgres.url

    @property
    def redis_url(self) -> str:
        return self.valkey.url

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            if self._temporary:
                undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self._make_directory()
            for server in (self.postgres, self.valkey):
                undo.callback(server.stop)
                server.start()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def _make_directory(self) -> None:
        # Other users may pass through the directory but not list it, because Postgres may run as another user. The
        # directories below it are private.
        self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        if self._temporary:
            self.directory.chmod(0o711)
