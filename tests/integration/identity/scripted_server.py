"""A token endpoint over TLS that sends scripted bytes, including those that no proper server would send."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import trustme


@dataclass(frozen=True, slots=True)
class RawResponse:
    """Bytes that are sent unchanged, and whether the connection is closed after them."""

    content: bytes = field(repr=False)
    close: bool = False


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    form: Mapping[str, str] = field(repr=False)


def http_response(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A complete HTTP response. ``headers`` replace the Content-Type and the Content-Length."""
    fields = {
        "Content-Type": "application/json; charset=utf-8",
        "Content-Length": str(len(body)),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Scripted\r\n{head}\r\n".encode() + body


def token_body(**changes: object) -> bytes:
    """The body of a successful response; ``changes`` replace its fields."""
    tokens: dict[str, object] = {"access_token": "an-access-token", "refresh_token": "a-refresh-token"}
    return json.dumps({"token_type": "Bearer", "expires_in": 3600, **tokens, **changes}).encode()


class ScriptedServer:
    """``token`` is sent for every POST, ``discovery`` for every GET. ``requests`` are those received, ``closed`` is the
    number of connections that have ended. While ``accepts`` is not set, new connections get no TLS handshake."""

    def __init__(self, port: int, ca_bundle: Path) -> None:
        self.port = port
        self.ca_bundle = ca_bundle
        self.requests: list[ReceivedRequest] = []
        self.closed = 0
        self.accepts = threading.Event()
        self.accepts.set()
        self.token = RawResponse(http_response(200, token_body()))
        self.publish()

    @property
    def base_url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def authority(self) -> str:
        return f"{self.base_url}/common"

    def document(self, **changes: object) -> dict[str, object]:
        """The OpenID metadata that MSAL needs; ``changes`` replace its fields."""
        root = f"{self.authority}/oauth2/v2.0"
        endpoints = {"token_endpoint": f"{root}/token", "authorization_endpoint": f"{root}/authorize"}
        return {**endpoints, "issuer": self.authority, **changes}

    def publish(self, **changes: object) -> None:
        """Serve the OpenID metadata with these changes."""
        self.discovery = RawResponse(http_response(200, json.dumps(self.document(**changes)).encode()))

    def posts(self) -> list[ReceivedRequest]:
        return [request for request in self.requests if request.method == "POST"]


@contextmanager
def scripted_servers(directory: Path, *names: str) -> Iterator[Callable[[], ScriptedServer]]:
    """Serves until the end of the block, and starts a new script at each call of what it yields.

    ``directory`` receives the certificate authority's PEM. The certificate is for localhost and ``names``.
    """
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", *names).configure_cert(tls)
    server = _Server(tls)
    ca_bundle = directory / "scripted-ca.pem"
    authority.cert_pem.write_to_path(ca_bundle)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()

    def new_script() -> ScriptedServer:
        server.scripted = ScriptedServer(server.server_port, ca_bundle)
        return server.scripted

    try:
        yield new_script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a thread whose client keeps the connection ends with the client
    request_queue_size = 64
    scripted: ScriptedServer

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._accepted: dict[socket.socket, ScriptedServer] = {}
        super().__init__(("127.0.0.1", 0), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        # The handshake is the handler's: a client that refuses our certificate must not hold up the others.
        secured = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self._accepted[secured] = self.scripted
        return secured, address

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._accepted.pop(request).closed += 1  # a connection of the test before may end during this one

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Some tests are about a client that closes the connection."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    connection: ssl.SSLSocket
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        self.server.scripted.accepts.wait()
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_GET(self) -> None:
        self._respond(self.server.scripted.discovery, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._respond(self.server.scripted.token, dict(parse_qsl(body.decode())))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has there
        pass

    def _respond(self, response: RawResponse, form: Mapping[str, str]) -> None:
        self.server.scripted.requests.append(ReceivedRequest(self.command, self.path, dict(self.headers), form))
        self.wfile.write(response.content)
        self.close_connection = response.close
