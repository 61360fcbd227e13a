"""A proxy to Postgres that breaks at the worst moment: the commit arrives, its confirmation does not."""

import selectors
import socket
import threading
from contextlib import suppress

from sqlalchemy import make_url

from tests.proxy import CHUNK, Proxy

_COMMIT = b"COMMIT\x00"  # the end of a simple query message


class LossyProxy(Proxy):
    """Passes bytes both ways, for any number of connections."""

    def __init__(self, database_url: str) -> None:
        super().__init__()
        target = make_url(database_url)
        self._target = target.host or "127.0.0.1", target.port or 5432
        self._armed = threading.Event()
        self.lost = 0
        self.url = target.set(host="127.0.0.1", port=self.port).render_as_string(hide_password=False)

    def lose_next_confirmation(self) -> None:
        self._armed.set()

    def serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server, selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            with suppress(OSError):
                while self._pass_on(ready, client, server):
                    pass

    def _pass_on(self, ready: selectors.BaseSelector, client: socket.socket, server: socket.socket) -> bool:
        for key, _ in ready.select():
            source: socket.socket = key.fileobj  # type: ignore[assignment]  # the registered object
            chunk = source.recv(CHUNK)
            if not chunk:
                return False
            key.data.sendall(chunk)
            if source is client and chunk.endswith(_COMMIT) and self._armed.is_set():
                self._armed.clear()
                server.recv(CHUNK)  # the transaction is committed now
                self.lost += 1
                return False
        return True
