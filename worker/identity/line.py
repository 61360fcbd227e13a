"""One kept-alive TLS connection, and the question that is on it: a state machine that never blocks.

Bytes become a message in llhttp, the parser of Node.js; a message that is odd in any way ends the connection.
"""

import enum
import socket
import ssl
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import httptools

CONNECT = 3.0  # seconds until a connection stands, TLS included
SILENCE = 15.0  # seconds without a byte
LONGEST = 30.0  # seconds until an answer must be complete, however it trickles

_LARGEST_ANSWER = 1 << 20  # bytes; a real one has about 6 KB
_LARGEST_HEAD = 1 << 16
_CHUNK = 1 << 16
_PROVISIONAL = range(100, 200)
_ZLIB_OR_GZIP = 47  # what zlib takes for "whichever of the two it is"


@dataclass(frozen=True, slots=True)
class Message:
    """A request, byte for byte, and the host and port it goes to."""

    endpoint: tuple[str, int]
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, whole. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class WireError(Exception):
    """No answer. ``code`` is stable; whether the question arrived is unknown after ``timeout``."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Wants(enum.Enum):
    """What a line waits for."""

    READ = enum.auto()
    WRITE = enum.auto()


class Line:
    """Give it a message with ``ask``, then ``go_on`` whenever its socket is ready, until there is a reply."""

    def __init__(self, context: ssl.SSLContext, host: str, address: tuple[int, tuple[str, int]], now: float) -> None:
        self._tls = context
        self._host = host
        self.reply: Reply | None = None
        self._outgoing = b""
        self._standing = self._secured = False
        family, where = address
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._begun = now
        self.deadline = now + CONNECT
        with suppress(BlockingIOError):
            self._socket.connect(where)

    def fileno(self) -> int:
        return self._socket.fileno()

    def ask(self, message: bytes, now: float) -> None:
        """The reply before must have been taken."""
        self.reply = None
        self._outgoing = message
        self._answer = _Answer()
        self._begun = now
        if self._standing:
            self.deadline = now + SILENCE

    def go_on(self, now: float) -> Wants:
        """Do what can be done without waiting. Raises WireError."""
        try:
            return self._step(now)
        except ssl.SSLWantReadError:
            return Wants.READ
        except (ssl.SSLWantWriteError, BlockingIOError):
            return Wants.WRITE
        except ssl.SSLCertVerificationError:
            raise WireError("tls") from None
        except ssl.SSLError:
            raise WireError("tls" if not self._standing else "connection_lost") from None
        except OSError:
            raise WireError("connect_failed" if not self._secured else "connection_lost") from None
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise WireError("connection_lost") from None

    def overdue(self) -> WireError:
        """What it means that the deadline has passed."""
        return WireError("timeout" if self._secured else "connect_timeout")

    @property
    def is_reusable(self) -> bool:
        """Whether another question may follow the reply."""
        return self._answer.keep_alive

    def close(self) -> None:
        self._socket.close()

    def _step(self, now: float) -> Wants:
        if not self._secured:
            self._secure()
        if not self._standing:
            assert isinstance(self._socket, ssl.SSLSocket)
            self._socket.do_handshake()
            self._standing = True
            self.deadline = now + SILENCE
        if self._outgoing:
            while self._outgoing:
                self._outgoing = self._outgoing[self._socket.send(self._outgoing) :]
            return Wants.READ  # it takes a while to be answered
        while self.reply is None:
            self.reply = self._answer.feed(self._socket.recv(_CHUNK))
            self.deadline = min(now + SILENCE, self._begun + LONGEST)
        return Wants.READ

    def _secure(self) -> None:
        if error := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, "connect")
        try:
            self._socket.getpeername()
        except OSError:
            raise BlockingIOError from None  # it is still on its way
        self._socket = self._tls.wrap_socket(self._socket, server_hostname=self._host, do_handshake_on_connect=False)
        self._secured = True


class _Answer:
    """Collects one message. The methods that begin with ``on_`` are called by the parser."""

    def __init__(self) -> None:
        self._headers: dict[str, str] = {}
        self._size = self._read = 0  # bytes of headers, of the body
        self._body: list[bytes] = []
        self._status = 0
        self._complete = self._too_large = False
        self.keep_alive = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, received: bytes) -> Reply | None:
        """Raises HttpParserError, and WireError at the end of the connection."""
        if not received:
            raise WireError("connection_lost")
        self._parser.feed_data(received)
        if self._too_large:
            return Reply(self._parser.get_status_code(), self._headers, b"")
        return self._whole() if self._complete else None

    def on_message_begin(self) -> None:
        if self._complete:
            self.keep_alive = False  # more than was asked for: it belongs to nobody

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value)
        if self._size > _LARGEST_HEAD:
            raise WireError("connection_lost")
        if not self._complete:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._read += len(body)
        self._too_large = self._read > _LARGEST_ANSWER
        if not (self._complete or self._too_large):
            self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status in _PROVISIONAL:
            self._headers.clear()
        elif not self._complete:
            self._status, self._complete = status, True
            self.keep_alive = bool(self._parser.should_keep_alive())

    def _whole(self) -> Reply:
        body = b"".join(self._body)
        if self._headers.get("content-encoding", "identity") != "identity":  # nobody has asked for it
            body = _unpacked(body)
        return Reply(self._status, self._headers, body)


def _unpacked(body: bytes) -> bytes:
    """Empty if it is not packed as it says, or would be too large."""
    unpacker = zlib.decompressobj(_ZLIB_OR_GZIP)
    try:
        plain = unpacker.decompress(body, _LARGEST_ANSWER)
    except zlib.error:
        return b""
    return plain if unpacker.eof else b""
