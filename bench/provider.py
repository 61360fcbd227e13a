"""A token endpoint that needs little CPU: one asyncio protocol over TLS with prepared responses.

``python -m bench.provider DIRECTORY LATENCY`` runs it in its own process, so that its CPU time can be measured. It
writes its port into ``DIRECTORY/port``, and the number of granted tokens into the first 8 bytes of
``DIRECTORY/granted``.
"""

import asyncio
import base64
import importlib
import json
import mmap
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

ACCESS_TOKEN, REFRESH_TOKEN, ID_TOKEN = 1800, 1300, 900  # bytes, about as many as Microsoft's
LIFETIME = 3600  # seconds
CLIENT_ID = "11111111-2222-4333-8444-555555555555"
CLIENT_SECRET = "bench-client-secret"

_NUMBER = b"%020d"
_FIRST = _NUMBER % 0  # replaced by the number of the response, so that every refresh token is different
_END = b"\r\n\r\n"


def token(size: int, number: bytes = _FIRST) -> str:
    """A token of the right length and alphabet. It is no JWT."""
    return number.decode().ljust(size, "x")


def _http(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nCache-Control: no-store\r\n"
        b"x-ms-request-id: 5e1d2e5c-3f5c-4c3e-9d59-0d5b8d0c1a00\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )


def _granted() -> bytes:
    return _http(
        json.dumps(
            {
                "token_type": "Bearer",
                "scope": "https://outlook.office.com/IMAP.AccessAsUser.All https://outlook.office.com/SMTP.Send",
                "expires_in": LIFETIME,
                "ext_expires_in": LIFETIME,
                "access_token": token(ACCESS_TOKEN),
                "refresh_token": token(REFRESH_TOKEN),
                "id_token": _id_token(),
            }
        ).encode()
    )


def _id_token() -> str:
    """An ID token that MSAL accepts. MSAL checks the audience and the times, but not the signature."""
    claims = {"aud": CLIENT_ID, "sub": "x" * 200, "iss": "bench", "iat": 1_700_000_000, "exp": 4_000_000_000}
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e.{body}.".ljust(ID_TOKEN, "x")


class Responses:
    """The responses, and the number of granted tokens."""

    def __init__(self, directory: Path, latency: float) -> None:
        self.latency = latency
        self._granted = _granted().split(_FIRST)
        file = directory / "granted"
        file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._count = mmap.mmap(opened.fileno(), 8)
        self._number = 0
        self.metadata = b""

    def named(self, base: str) -> None:
        self.metadata = _http(
            json.dumps(
                {
                    "issuer": f"{base}/v2.0",
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                    "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
                }
            ).encode()
        )

    def grant(self) -> bytes:
        self._number += 1
        self._count[:8] = struct.pack("<q", self._number)
        return (_NUMBER % self._number).join(self._granted)


class Connection(asyncio.Protocol):
    """Serves the requests of one connection. Each has a Content-Length or no body."""

    def __init__(self, responses: Responses) -> None:
        self._responses = responses
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's class does not inherit from it
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (head := self._received.find(_END)) >= 0:
            end = head + len(_END) + _content_length(self._received[:head])
            if len(self._received) < end:
                return
            request, self._received = self._received[:end], self._received[end:]
            self._respond(request)

    def _respond(self, request: bytes) -> None:
        if request.startswith(b"GET"):
            self._transport.write(self._responses.metadata)
        elif self._responses.latency:
            asyncio.get_running_loop().call_later(self._responses.latency, self._grant)
        else:
            self._grant()

    def _grant(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._responses.grant())


def _content_length(head: bytes) -> int:
    at = head.lower().find(b"content-length:")
    return int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


async def _serve(directory: Path, latency: float) -> None:
    responses = Responses(directory, latency)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "provider.pem")
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listener.getsockname()[1]
    responses.named(f"https://localhost:{port}/common")
    server = await asyncio.get_running_loop().create_server(lambda: Connection(responses), sock=listener, ssl=context)
    (directory / "port.new").write_text(str(port))
    (directory / "port.new").rename(directory / "port")
    await server.serve_forever()


def _main() -> None:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(Path(sys.argv[1]), float(sys.argv[2])))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's loop if it is installed, because it halves the provider's CPU time."""
    with suppress(ImportError):
        return cast("Callable[[], asyncio.AbstractEventLoop]", importlib.import_module("uvloop").new_event_loop)
    return asyncio.new_event_loop


if __name__ == "__main__":
    _main()
