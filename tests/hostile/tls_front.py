"""A TLS server in front of a real store, or in its place. It records the bytes that clients send through TLS."""

import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme

_CHUNK = 65_536  # bytes
_WAIT = 30.0  # seconds until the connection of a silent client is closed


class TlsFront:
    """Forwards bytes to ``target``, a host and a port. Without a target it sends no response."""

    def __init__(self, directory: Path, *, name: str, target: tuple[str, int] | None = None) -> None:
        authority = trustme.CA()
        self.ca_bundle = directory / f"{name}.pem"
        authority.cert_pem.write_to_path(str(self.ca_bundle))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(self._context)
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.received = b""
        self.connections = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(_WAIT)
        with suppress(OSError), self._context.wrap_socket(client, server_side=True) as secure:
            if self._target is None:
                self.received += secure.recv(_CHUNK)
                return
            with socket.create_connection(self._target) as server:
                back = threading.Thread(target=_pass_on, args=(server, secure), daemon=True)
                back.start()
                _pass_on(secure, server)
                back.join(_WAIT)


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(_CHUNK):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)
