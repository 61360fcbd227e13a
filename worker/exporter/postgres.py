"""The metrics that Postgres yields at each scrape, in milliseconds however many accounts there are."""

from collections.abc import Callable
from datetime import datetime, timedelta

from worker.db import breakers, metrics
from worker.db.session import Database
from worker.exporter import labels
from worker.exporter.families import Reading, gauges
from worker.exporter.refreshes import RefreshCounter

_NO_TIME = timedelta(0)


class PostgresState:
    """Overdue accounts, breakers and refreshes. Not thread-safe."""

    name = "postgres"

    def __init__(self, database: Database, *, utcnow: Callable[[], datetime]) -> None:
        self._database = database
        self._utcnow = utcnow
        self._refreshes = RefreshCounter()

    def read(self) -> Reading:
        """Raises WorkerError."""
        skew = self._database.utcnow() - self._utcnow()
        now = self._utcnow()
        with self._database.begin() as connection:
            oldest = metrics.oldest_due(connection, now=now)
            stored = {breaker.client: breaker for breaker in breakers.all_breakers(connection)}
            self._refreshes.advance(connection, now=now)
        overdue = {labels.client(name): now - due if due else _NO_TIME for name, due in oldest.items()}
        is_open = {name: name in stored and stored[name].open_until is not None for name in {*oldest, *stored}}
        return Reading(
            [
                gauges(
                    "oldest_overdue_seconds",
                    "How long ago the longest overdue account was due; 0 if none is",
                    ["client"],
                    (((name,), span.total_seconds()) for name, span in overdue.items()),
                ),
                gauges(
                    "breaker_open",
                    "Whether the app registration's circuit breaker is open",
                    ["client"],
                    (((labels.client(name),), float(value)) for name, value in is_open.items()),
                ),
                *self._refreshes.families(),
            ],
            [skew],
        )

    def close(self) -> None:
        self._database.close()
