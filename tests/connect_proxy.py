"""An HTTP proxy that takes CONNECT, and records what it is asked for."""

import base64
import socket
from contextlib import suppress

from tests.proxy import Proxy, pass_both_ways

REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nX-Proxy: yes\r\n\r\nno"
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\nX-Proxy: yes\r\n\r\n"
_UNAUTHORIZED = b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n'


class ConnectProxy(Proxy):
    """``credentials``: those that it demands. ``answer``: what it sends instead of a connection."""

    def __init__(self, *, credentials: str | None = None, answer: bytes | None = None) -> None:
        super().__init__()
        self._credentials = credentials
        self._answer = answer
        self.targets: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                if not (byte := client.recv(1)):
                    return
                head += byte
            target = head.split()[1].decode()
            self.targets.append(target)
            if self._answer is not None:
                client.sendall(self._answer)
            elif self._credentials and base64.b64encode(self._credentials.encode()) not in head:
                client.sendall(_UNAUTHORIZED)
            else:
                host, _, port = target.rpartition(":")
                with socket.create_connection((host.strip("[]"), int(port))) as server:
                    client.sendall(_ESTABLISHED)
                    pass_both_ways(client, server)
