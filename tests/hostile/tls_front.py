"""A TLS server in front of a real store, or in its place. It records the bytes that clients send through TLS."""

import socket
import ssl
from contextlib import suppress
from pathlib import Path

import trustme

from tests.proxy import CHUNK, Proxy, pass_both_ways

_WAIT = 30.0  # seconds until the connection of a silent client is closed


class TlsFront(Proxy):
    """Forwards bytes to ``target``, a host and a port. Without a target it sends no response."""

    def __init__(self, directory: Path, *, name: str, target: tuple[str, int] | None = None) -> None:
        super().__init__()
        authority = trustme.CA()
        self.ca_bundle = directory / f"{name}.pem"
        authority.cert_pem.write_to_path(str(self.ca_bundle))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(self._context)
        self._target = target
        self.received = b""
        self.connections = 0

    def serve(self, client: socket.socket) -> None:
        self.connections += 1
        client.settimeout(_WAIT)
        with suppress(OSError), self._context.wrap_socket(client, server_side=True) as secure:
            if self._target is None:
                self.received += secure.recv(CHUNK)
                return
            with socket.create_connection(self._target) as server:
                pass_both_ways(secure, server)
