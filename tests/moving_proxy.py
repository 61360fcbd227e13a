"""A TCP proxy on loopback that can point to another server, as the name of a store does after a fail-over."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from sqlalchemy import make_url

_CHUNK = 65_536  # bytes


class MovingProxy:
    """Passes bytes both ways, for any number of connections. Connections stay with the server they were opened to."""

    def __init__(self, url: str) -> None:
        target = make_url(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        host, port = self._listener.getsockname()
        self.url = target.set(host=host, port=port).render_as_string(hide_password=False)
        self._open: set[socket.socket] = set()
        self.point_to(url)

    def point_to(self, url: str) -> None:
        """Lead new connections to the server at ``url``."""
        target = make_url(url)
        assert target.host
        assert target.port
        self._target = target.host, target.port

    def cut(self) -> None:
        """End all connections."""
        for client in list(self._open):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(self._target) as server:
            self._open.add(client)
            back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
            back.start()
            _pass_on(client, server)
            back.join()
        self._open.discard(client)


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(_CHUNK):
            sink.sendall(chunk)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
