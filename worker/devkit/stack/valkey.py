"""A real Valkey below one directory, on loopback, behind a password. Never for production."""

import socket
from pathlib import Path

from worker.devkit.stack import programs
from worker.devkit.stack.process import Process
from worker.devkit.stack.server import Server

_PROBE_LIMIT = 1.0  # seconds


class ValkeyServer(Server):
    def __init__(self, directory: Path, *, durable: bool = True) -> None:
        super().__init__(directory, durable=durable)
        self._configuration = self._directory.path / "valkey.conf"

    @property
    def url(self) -> str:
        return f"redis://:{self._address()}/0"

    def _prepare(self, lock: int) -> None:
        (self._directory.path / "data").mkdir(mode=0o700, exist_ok=True)

    def _command(self, port: int) -> list[str]:
        """The password goes into a private file, because other users can read a command line."""
        lines = [
            "bind 127.0.0.1",
            f"port {port}",
            f"requirepass {self._directory.password()}",
            "dir data",
            "appendonly yes",
            f"appendfsync {'everysec' if self._durable else 'no'}",
            'save ""',
            "maxmemory-policy noeviction",
        ]
        self._directory.write_private(self._configuration, "\n".join(lines) + "\n")
        return [str(programs.find_valkey()), self._configuration.name]

    def _ready(self, process: Process, port: int) -> bool:
        """Whether the server responds to a command. It returns an error while it loads its data. Another server on the
        port would reject the password."""
        try:
            with socket.create_connection(("127.0.0.1", port), _PROBE_LIMIT) as connection:
                connection.sendall(f"AUTH {self._directory.password()}\r\nPING\r\n".encode())
                replies = connection.makefile("rb")
                return (replies.readline(), replies.readline()) == (b"+OK\r\n", b"+PONG\r\n")
        except OSError:
            return False
