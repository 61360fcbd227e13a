"""Many questions at a time from one thread: the connections of a process, and exchanges over them.

Threads that each wait for their own answer cost more than the answers: with 16 of them fighting for the interpreter, a
question took twice the CPU. Here whoever asks drives all sockets itself, and what has been answered comes back in
groups. See docs/benchmarks.md.
"""

import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

from worker.identity.line import Line, Message, Reply, Wants, WireError

Key = TypeVar("Key")
Address = tuple[int, tuple[str, int]]  # family, host and port
_EVENTS = {Wants.READ: select.POLLIN, Wants.WRITE: select.POLLOUT}


def monotonic() -> float:
    """Seconds, on a clock that no test freezes: a time limit is about real sockets."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


class Wire:
    """Idle connections, kept for the next question. Thread-safe; make it after a fork."""

    def __init__(self, context: ssl.SSLContext, *, connections: int) -> None:
        self._tls = context
        self._most = connections
        self._idle: dict[tuple[str, int], list[Line]] = {}
        self._lock = threading.Lock()

    def open(self, endpoint: tuple[str, int], address: Address, now: float) -> Line:
        """A new connection. Raises WireError."""
        try:
            return Line(self._tls, endpoint[0], address, now)
        except OSError:
            raise WireError("connect_failed") from None

    def take(self, endpoint: tuple[str, int]) -> Line | None:
        """An idle connection that the other side has not ended meanwhile."""
        while True:
            with self._lock:
                idle = self._idle.get(endpoint)
                line = idle.pop() if idle else None
            if line is None or not _is_readable(line):
                return line
            line.close()

    def give(self, endpoint: tuple[str, int], line: Line) -> None:
        """Keep a connection, or end it: if it is no good, or enough are kept."""
        line.reply = None
        with self._lock:
            idle = self._idle.setdefault(endpoint, [])
            if line.is_reusable and len(idle) < self._most:
                idle.append(line)
                return
        line.close()

    def close(self) -> None:
        with self._lock:
            lines = [line for idle in self._idle.values() for line in idle]
            self._idle.clear()
        for line in lines:
            line.close()


class _Flight(Generic[Key]):
    """One message under way."""

    def __init__(self, key: Key, message: Message, now: float) -> None:
        self.key = key
        self.begun = now
        self.endpoint = message.endpoint
        self.content = message.content
        self.addresses: Iterator[Address] = iter(())
        self.line: Line


class Exchange(Generic[Key]):
    """The questions that one thread has under way, told apart by a key. Not thread-safe."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._poll = select.poll()
        self._flights: dict[int, _Flight[Key]] = {}
        self._done: list[tuple[Key, Reply | WireError, float]] = []
        self._addresses: dict[tuple[str, int], list[Address] | WireError] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for flight in self._flights.values():
            flight.line.close()
        self._flights.clear()

    def __len__(self) -> int:
        """How many have not come back from ``wait`` yet."""
        return len(self._flights) + len(self._done)

    def begin(self, key: Key, message: Message) -> None:
        """Send a message, or begin to."""
        now = monotonic()
        try:
            flight = _Flight(key, message, now)
            line = self._wire.take(flight.endpoint)
            if line is None:
                flight.addresses = iter(self._resolve(flight.endpoint))
                line = self._wire.open(flight.endpoint, next(flight.addresses), now)
        except WireError as error:
            self._done.append((key, error, 0.0))
            return
        self._send(flight, line, now)

    def wait(self, seconds: float) -> list[tuple[Key, Reply | WireError, float]]:
        """What has come back, with the seconds it took: at once if there is something, else after a wait."""
        end = monotonic() + seconds
        while self._flights and not self._done:
            now = monotonic()
            limit = min(end, *(flight.line.deadline for flight in self._flights.values()))
            for descriptor, _event in self._poll.poll(max(0.0, limit - now) * 1000):
                self._go_on(self._flights[descriptor], monotonic())
            now = monotonic()
            for flight in [flight for flight in self._flights.values() if flight.line.deadline <= now]:
                self._fail(flight, flight.line.overdue(), now)
            if now >= end:
                break
        done, self._done = self._done, []
        return done

    def _resolve(self, endpoint: tuple[str, int]) -> list[Address]:
        """Asked for once per exchange: a resolver that is away takes its time. Raises WireError."""
        if endpoint not in self._addresses:
            try:
                found = socket.getaddrinfo(*endpoint, type=socket.SOCK_STREAM)
                self._addresses[endpoint] = [(family, where) for family, _, _, _, where in found]  # type: ignore[misc]
            except (OSError, UnicodeError):
                self._addresses[endpoint] = WireError("dns")
        known = self._addresses[endpoint]
        if isinstance(known, WireError):
            raise known
        return known

    def _send(self, flight: _Flight[Key], line: Line, now: float) -> None:
        flight.line = line
        line.ask(flight.content, now)
        self._flights[line.fileno()] = flight
        self._poll.register(line.fileno(), select.POLLOUT)
        self._go_on(flight, now)

    def _go_on(self, flight: _Flight[Key], now: float) -> None:
        line = flight.line
        try:
            wants = line.go_on(now)
        except WireError as error:
            self._fail(flight, error, now)
            return
        if line.reply is None:
            self._poll.modify(line.fileno(), _EVENTS[wants])
            return
        reply = line.reply
        self._forget(flight)
        self._wire.give(flight.endpoint, line)
        self._done.append((flight.key, reply, now - flight.begun))

    def _fail(self, flight: _Flight[Key], error: WireError, now: float) -> None:
        self._forget(flight)
        flight.line.close()
        if error.code in {"connect_failed", "connect_timeout"}:  # the name may have another address
            for address in flight.addresses:
                try:
                    line = self._wire.open(flight.endpoint, address, now)
                except WireError:
                    continue
                self._send(flight, line, now)
                return
        self._done.append((flight.key, error, now - flight.begun))

    def _forget(self, flight: _Flight[Key]) -> None:
        del self._flights[flight.line.fileno()]
        self._poll.unregister(flight.line.fileno())


def _is_readable(line: Line) -> bool:
    """Of a connection on which nothing was asked: then it has ended, or says what belongs to nobody."""
    poll = select.poll()
    poll.register(line.fileno(), select.POLLIN)
    return bool(poll.poll(0))
