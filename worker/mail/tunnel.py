"""A connection through an HTTP proxy, by CONNECT (RFC 9110 section 9.3.6)."""

import asyncio
import base64
import socket
from collections.abc import Generator

from worker.domain.proxy import Proxy
from worker.mail.deadline import Deadline

_ANSWER_LIMIT = 16 * 1024  # bytes
_END = b"\r\n\r\n"


class ProxyRefused(OSError):
    """The proxy does not connect to the host."""


def open_tunnel(connection: socket.socket, proxy: Proxy, host: str, port: int, deadline: Deadline) -> None:
    """Have the proxy connect. Raises ProxyRefused, or another OSError."""
    connection.settimeout(max(deadline.left, 0.001))
    connection.sendall(_request(proxy, host, port))
    reading = _reading()
    next(reading)
    while True:
        # One byte at a time, because those behind the answer are the mail server's.
        try:
            reading.send(connection.recv(1))
        except StopIteration:
            return


async def open_tunnel_async(connection: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """The same for asyncio."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, _request(proxy, host, port))
    reading = _reading()
    next(reading)
    while True:
        try:
            reading.send(await loop.sock_recv(connection, 1))
        except StopIteration:
            return


def _request(proxy: Proxy, host: str, port: int) -> bytes:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.credentials:
        encoded = base64.b64encode(proxy.credentials.reveal().encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {encoded}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _reading() -> Generator[None, bytes, None]:
    """Takes the bytes of the answer until it is complete."""
    answer = b""
    while not answer.endswith(_END):
        byte = yield
        answer += byte
        if not byte or len(answer) > _ANSWER_LIMIT:
            raise ProxyRefused("the proxy closed the connection" if not byte else "the proxy's answer has no end")
    status = answer.split(b" ", 2)[1:2]
    if not (answer.startswith(b"HTTP/") and status and status[0][:1] == b"2"):
        number = status[0].decode("ascii", "replace") if status and status[0].isdigit() else "?"
        msg = f"the proxy refuses the connection (HTTP {number}); check WORKER_PROXY and what it allows"
        raise ProxyRefused(msg)
