"""Puts a scrape together: the readings of the stores that answer in time, and what needs no store."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from datetime import datetime
from typing import Protocol

import structlog
from prometheus_client.metrics_core import Metric

from worker import __version__
from worker.domain.errors import WorkerError
from worker.exporter.credentials import Credentials
from worker.exporter.families import Reading, gauge, gauges
from worker.exporter.fleet import Fleet

_log = structlog.get_logger(__name__)

_LIMIT = 3.0  # seconds that a scrape waits for a store; Prometheus waits for 10 by default


class Store(Protocol):
    """One of the stores."""

    name: str

    def read(self) -> Reading:
        """Raises WorkerError."""

    def close(self) -> None:
        """Close the connections."""


class Reader:
    """Reads one store for all scrapes, one at a time, and no scrape waits longer than the limit."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._reading: Future[Reading] | None = None
        self._reason = ""  # why the store cannot be read

    def begin(self) -> "Future[Reading]":
        """Begin to read, or join a read that has begun."""
        with self._lock:
            if self._reading is None or self._reading.done():
                self._reading = Future()
                # A thread that ends with the process, even if a store has let it hang.
                threading.Thread(target=self._read, args=(self._reading,), daemon=True).start()
            return self._reading

    def end(self, reading: "Future[Reading]") -> Reading | None:
        """The reading; None if there is none now."""
        found, reason = None, f"no answer within {_LIMIT:g} seconds"
        if reading.done():
            try:
                found, reason = reading.result(), ""
            except WorkerError as error:
                reason = str(error)
            except Exception as error:  # noqa: BLE001 - a bug must not hide the other stores
                reason = type(error).__name__
                if not self._reason:
                    _log.exception("Store cannot be read because of a bug", store=self.store.name)
        self._log_change(reason)
        return found

    def _read(self, reading: "Future[Reading]") -> None:
        try:
            reading.set_result(self.store.read())
        except BaseException as error:  # noqa: BLE001 - for the thread that waits
            reading.set_exception(error)

    def _log_change(self, reason: str) -> None:
        with self._lock:
            before, self._reason = self._reason, reason
        if reason and not before:
            _log.warning("Store cannot be read", store=self.store.name, reason=reason)
        elif before and not reason:
            _log.info("Store can be read again", store=self.store.name)


class Collector:
    """All metrics. Thread-safe, for the scrapes of several Prometheus servers."""

    def __init__(
        self, stores: Sequence[Store], *, fleet: Fleet, credentials: Credentials, utcnow: Callable[[], datetime]
    ) -> None:
        self._readers = [Reader(store) for store in stores]
        self._fleet = fleet
        self._credentials = credentials
        self._utcnow = utcnow

    def describe(self) -> Sequence[Metric]:
        """Nothing: a registry would otherwise read the stores to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        begun = self._utcnow()
        readings = self.readings()
        skews = [skew for reading in readings.values() if reading for skew in reading.skews]
        durations = {"scrape": self._utcnow() - begun}
        for reading in filter(None, readings.values()):
            yield from reading.families
        if readings.get("postgres"):
            yield from self._fleet.families()
            durations |= {"fleet": self._fleet.duration} if self._fleet.duration else {}
        yield from self._credentials.families()
        yield gauges(
            "store_up",
            "Whether the store has answered the exporter in time",
            ["store"],
            (((name,), float(reading is not None)) for name, reading in readings.items()),
        )
        if skews:
            meaning = "The difference of the clock of a store or process that is farthest from the exporter's"
            yield gauge("clock_skew_seconds", meaning, max(skews, key=abs).total_seconds())
        yield gauges("build_info", "The version of the exporter", ["version"], [((__version__,), 1)])
        yield gauges(
            "collection_duration_seconds",
            "Time that the stores took: for this scrape, and for the last count of all accounts",
            ["group"],
            (((group,), duration.total_seconds()) for group, duration in durations.items()),
        )

    def close(self) -> None:
        """Close the connections to the stores."""
        for reader in self._readers:
            reader.store.close()

    def readings(self) -> dict[str, Reading | None]:
        """The readings of now; None for a store that does not answer in time."""
        begun = [(reader, reader.begin()) for reader in self._readers]
        wait([reading for _, reading in begun], timeout=_LIMIT)
        return {reader.store.name: reader.end(reading) for reader, reading in begun}
