"""Many questions at a time from one thread, over libcurl.

Threads that each wait for their own answer cost more than the answers: with 16 of them fighting for the interpreter, a
question took several times the CPU. Here whoever asks drives all sockets himself, and what has been answered comes back
in groups. See docs/benchmarks.md.
"""

import io
import select
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import pycurl

Key = TypeVar("Key")

# Seconds of waiting. libcurl's own limits would go on while whoever asks does something else, e.g. while a database
# hangs, and be looked at before the answer that has come meanwhile is read.
_CONNECT = 3.0  # until a connection stands, TLS included
_ANSWER = 15.0  # until an answer must be complete, however it trickles
_LARGEST_ANSWER = 1 << 20  # bytes; a real one has about 6 KB
_CODES = {
    pycurl.E_COULDNT_RESOLVE_HOST: "dns",
    pycurl.E_COULDNT_CONNECT: "connect_failed",
    pycurl.E_URL_MALFORMAT: "connect_failed",
    pycurl.E_SSL_CONNECT_ERROR: "tls",
    pycurl.E_PEER_FAILED_VERIFICATION: "tls",
    pycurl.E_SSL_CACERT_BADFILE: "tls",
    pycurl.E_SSL_CIPHER: "tls",
}
_ODD = (pycurl.E_FILESIZE_EXCEEDED, pycurl.E_BAD_CONTENT_ENCODING)  # answered, with a body that is of no use
_EVENTS = {
    pycurl.POLL_IN: select.POLLIN,
    pycurl.POLL_OUT: select.POLLOUT,
    pycurl.POLL_INOUT: select.POLLIN | select.POLLOUT,
}


def monotonic() -> float:
    """Seconds, on a clock that no test freezes: a time limit is about real sockets."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


@dataclass(slots=True)
class Message:
    """A request, ready to be sent: a POST if it has a body, else a GET. Make its headers by ``header_lines``."""

    url: str
    headers: tuple[str, ...] = field(repr=False)
    body: str | None = field(repr=False, default=None)


def header_lines(headers: Mapping[str, str]) -> tuple[str, ...]:
    """As a Message has them. Raises ValueError for one that would not stay in its line."""
    lines = tuple(f"{name}: {value}" for name, value in headers.items())
    if not "".join(lines).isprintable():
        raise ValueError("a header that would not stay in its line")
    return lines


@dataclass(slots=True)
class Reply:
    """What came back, whole; without a body if that was too large or damaged. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class WireError(Exception):
    """No answer. ``code`` is stable; whether the question arrived is unknown after ``timeout``."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Wire:
    """The connections of a process, kept for the next question. Thread-safe; make it after a fork."""

    def __init__(self, *, ca_bundle: Path | None, connections: int) -> None:
        self._ca_bundle = ca_bundle
        self._connections = connections
        self._idle: list[_Lines] = []
        self._lock = threading.Lock()

    def ask(self, message: Message) -> Reply:
        """Send one message and wait. Raises WireError, and ValueError for what cannot be sent."""
        with Exchange[None](self) as exchange:
            exchange.begin(None, message)
            while not (done := exchange.wait(_ANSWER)):
                pass
        [(_, reply, _)] = done
        if isinstance(reply, WireError):
            raise reply
        return reply

    def take(self) -> "_Lines":
        """For one thread, until it gives them back."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Lines(self._ca_bundle, self._connections)

    def give(self, lines: "_Lines") -> None:
        with self._lock:
            self._idle.append(lines)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for lines in idle:
            lines.close()


class Exchange(Generic[Key]):
    """The questions that one thread has under way, told apart by a key. Not thread-safe."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._lines = wire.take()
        self._flights: dict[pycurl.Curl, _Flight[Key]] = {}
        self._waited = 0.0  # seconds in all, and the clock of the time limits
        self._look_at = _CONNECT  # on that clock; no time limit of any flight is reached before

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for line in self._flights:
            self._lines.drop(line)
        self._flights.clear()
        self._wire.give(self._lines)

    def __len__(self) -> int:
        """How many have not come back from ``wait`` yet."""
        return len(self._flights)

    def begin(self, key: Key, message: Message) -> None:
        """Send a message, or begin to. Raises ValueError for one that cannot be sent."""
        flight = _Flight(key, message, self._waited)
        self._flights[self._lines.send(flight)] = flight

    def wait(self, seconds: float) -> list[tuple[Key, Reply | WireError, float]]:
        """What has come back, with the seconds it took: at once if there is something, else after a wait."""
        seen, end = monotonic(), self._waited + seconds
        done = self._lines.ended()
        while self._flights and not done and self._waited < end:
            left = max(0.0, min(end, self._look_at) - self._waited)
            self._lines.go_on(left)
            now = monotonic()
            # A machine that stood still has waited for nobody: what came meanwhile may be readable only now.
            self._waited, seen = self._waited + min(now - seen, left), now
            # What can be read has been read now: only what is still missing is late.
            done = self._lines.ended() or self._late()
        return [self._landed(line, error) for line, error in done]

    def _late(self) -> list[tuple[pycurl.Curl, int]]:
        """The lines that have reached a time limit, broken. Cheap, for it looks through them every few seconds only."""
        if self._waited < self._look_at:
            return []
        limits = {line: flight.since + _patience(line) for line, flight in self._flights.items()}
        self._look_at = min([self._waited + _CONNECT, *(limit for limit in limits.values() if limit > self._waited)])
        late = [line for line, limit in limits.items() if limit <= self._waited]
        self._lines.give_up(late)
        return [(line, pycurl.E_OPERATION_TIMEDOUT) for line in late]

    def _landed(self, line: pycurl.Curl, error: int) -> tuple[Key, Reply | WireError, float]:
        flight = self._flights.pop(line)
        late = error == pycurl.E_OPERATION_TIMEDOUT  # and broken by us, which libcurl does not clock
        seconds: float = self._waited - flight.since if late else line.getinfo(pycurl.TOTAL_TIME)
        reply: Reply | WireError
        if error == pycurl.E_OK or error in _ODD:
            body = b"" if error in _ODD else b"".join(flight.body)
            reply = Reply(line.getinfo(pycurl.RESPONSE_CODE), _headers(flight.head), body)
        else:
            reply = WireError(_code(line, error))
        flight.forget()
        return flight.key, reply, seconds


class _Flight(Generic[Key]):
    """One message under way, and what has come back of it."""

    __slots__ = ("body", "head", "key", "message", "since", "upload")

    def __init__(self, key: Key, message: Message, since: float) -> None:
        self.key = key
        self.message = message
        self.since = since
        self.upload = io.BytesIO((message.body or "").encode("ascii"))
        self.head: list[bytes] = []
        self.body: list[bytes] = []

    def forget(self) -> None:
        """The line that is kept still knows where to read and write, and all of it holds tokens."""
        self.upload.close()
        self.head.clear()
        self.body.clear()


class _Lines:
    """libcurl's connections, told by us when their sockets are ready. Not thread-safe."""

    def __init__(self, ca_bundle: Path | None, connections: int) -> None:
        self._ca_bundle = ca_bundle
        self._free: list[pycurl.Curl] = []
        self._poll = select.poll()
        self._due: float | None = None  # when libcurl wants to look at its time limits
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)

    def send(self, flight: _Flight[Any]) -> pycurl.Curl:
        """Raises ValueError for a message that cannot be sent."""
        line = self._free.pop() if self._free else _line(self._ca_bundle)
        _set_out(line, flight)
        self._multi.add_handle(line)
        return line

    def go_on(self, seconds: float) -> None:
        """Wait until something can be done, and do it."""
        if self._due is not None:
            seconds = min(seconds, max(0.0, self._due - monotonic()))
        for descriptor, event in self._poll.poll(seconds * 1000):
            self._multi.socket_action(descriptor, _ready(event))
        if self._due is not None and self._due <= monotonic():
            self._due = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def ended(self) -> list[tuple[pycurl.Curl, int]]:
        """The lines whose message has been answered or has failed, and libcurl's error."""
        ended: list[tuple[pycurl.Curl, int]] = []
        more = 1
        while more:
            more, answered, failed = self._multi.info_read()
            ended += [(line, pycurl.E_OK) for line in answered] + [(line, error) for line, error, _ in failed]
        self.give_up([line for line, _ in ended])
        return ended

    def give_up(self, lines: Iterable[pycurl.Curl]) -> None:
        """Take them back; the connection of one whose message is still under way breaks."""
        for line in lines:
            self._multi.remove_handle(line)
            self._free.append(line)

    def drop(self, line: pycurl.Curl) -> None:
        """Break a connection on which an answer may still come."""
        self._multi.remove_handle(line)
        line.close()

    def close(self) -> None:
        for line in self._free:
            line.close()
        self._multi.close()

    def _watch(self, event: int, descriptor: int, *_: object) -> None:
        if event == pycurl.POLL_REMOVE:
            self._poll.unregister(descriptor)
        else:
            self._poll.register(descriptor, _EVENTS[event])

    def _set_timer(self, milliseconds: int) -> None:
        self._due = None if milliseconds < 0 else monotonic() + milliseconds / 1000


def _line(ca_bundle: Path | None) -> pycurl.Curl:
    """With everything that is the same for all messages: no time limits, own CA, no cookies, no redirects, nothing of
    the environment but where the system keeps its certificates."""
    line: Any = pycurl.Curl()
    line.setopt(pycurl.NOSIGNAL, 1)
    line.setopt(pycurl.NOPROXY, "*")
    line.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTPS)
    line.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
    line.setopt(pycurl.MAXFILESIZE, _LARGEST_ANSWER)
    line.setopt(pycurl.ACCEPT_ENCODING, "identity")  # and unpacks what is packed all the same
    system = ssl.get_default_verify_paths()
    for option, path in ((pycurl.CAINFO, ca_bundle or system.cafile), (pycurl.CAPATH, system.capath)):
        if path and (option == pycurl.CAINFO or not ca_bundle):
            line.setopt(option, str(path))
    return line


def _set_out(line: pycurl.Curl, flight: _Flight[Any]) -> None:
    message = flight.message
    line.setopt(pycurl.URL, message.url)
    line.setopt(pycurl.HTTPHEADER, message.headers)
    line.setopt(pycurl.HEADERFUNCTION, flight.head.append)
    line.setopt(pycurl.WRITEFUNCTION, flight.body.append)
    if message.body is None:
        line.setopt(pycurl.HTTPGET, 1)
        return
    # libcurl sends a message again of its own accord if a kept connection ends under it. Whether the first one arrived
    # is unknown then, and asking again is for the schedule: from a source that does not rewind it cannot.
    line.setopt(pycurl.POST, 1)
    line.setopt(pycurl.POSTFIELDSIZE, len(message.body))
    line.setopt(pycurl.READFUNCTION, flight.upload.read)


def _headers(lines: list[bytes]) -> dict[str, str]:
    """Of the last answer: provisional ones may have come before."""
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            found[name.lower()] = value.strip()
        elif name.startswith("HTTP/"):
            found.clear()
    return found


def _patience(line: pycurl.Curl) -> float:
    """Seconds."""
    return _ANSWER if _is_sent(line) else _CONNECT


def _is_sent(line: pycurl.Curl) -> bool:
    """Whether the message has gone out, and the connection stands."""
    return line.getinfo(pycurl.REQUEST_SIZE) > 0  # type: ignore[no-any-return]  # pycurl has no types


def _code(line: pycurl.Curl, error: int) -> str:
    if error == pycurl.E_OPERATION_TIMEDOUT:
        return "timeout" if _is_sent(line) else "connect_timeout"
    return _CODES.get(error, "connection_lost")


def _ready(event: int) -> Any:
    if event & ~(select.POLLIN | select.POLLOUT):
        return pycurl.CSELECT_ERR
    return (pycurl.CSELECT_IN if event & select.POLLIN else 0) | (pycurl.CSELECT_OUT if event & select.POLLOUT else 0)
