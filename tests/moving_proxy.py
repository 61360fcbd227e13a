"""A TCP proxy on loopback that can point to another server, as the name of a store does after a fail-over."""

import socket
from contextlib import suppress
from types import TracebackType

from sqlalchemy import make_url

from tests.proxy import Proxy, pass_both_ways


class MovingProxy(Proxy):
    """Passes bytes both ways, for any number of connections. Connections stay with the server they were opened to."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = make_url(url).set(host="127.0.0.1", port=self.port).render_as_string(hide_password=False)
        self._open: set[socket.socket] = set()
        self.point_to(url)

    def point_to(self, url: str) -> None:
        """Lead new connections to the server at ``url``."""
        target = make_url(url)
        assert target.host
        assert target.port
        self.target = target.host, target.port

    def cut(self) -> None:
        """End all connections."""
        for client in list(self._open):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.cut()

    def serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(self.target) as server:
            self._open.add(client)
            pass_both_ways(client, server)
        self._open.discard(client)
