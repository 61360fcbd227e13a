"""Counts all accounts once a minute, in the background, because it takes seconds per million."""

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

import structlog
from prometheus_client.metrics_core import Metric
from sqlalchemy import RowMapping

from worker.db import metrics
from worker.db.session import Database
from worker.domain.account import Status
from worker.domain.codes import ROWS
from worker.domain.errors import WorkerError
from worker.exporter import labels
from worker.exporter.families import gauge, gauges, seconds

_log = structlog.get_logger(__name__)

_INTERVAL = 60.0  # seconds between two counts
_RETRY = 5.0  # seconds after an error, and while another exporter counts
_LIMIT = timedelta(minutes=5)  # of the statement
_STALE = timedelta(minutes=3)  # after which a count is no longer shown: the next ones have failed

_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_EXPIRING = {"5m": 5 * _MINUTE, "15m": 15 * _MINUTE, "1h": _HOUR}
_ENDING = {"1d": _DAY, "7d": 7 * _DAY, "30d": 30 * _DAY}
_CODES = tuple(row.code for row in ROWS)


class Fleet:
    """The figures that need a look at every account. Of all exporters of a database one has them, the others none.

    That one holds a lock in Postgres. If it ends, another one has the lock within seconds.
    """

    def __init__(self, database: Database, *, utcnow: Callable[[], datetime]) -> None:
        self._database = database
        self._utcnow = utcnow
        self._stopping = threading.Event()
        self._counted: tuple[datetime, Sequence[Metric]] | None = None
        self.duration: timedelta | None = None  # of the last count; None before the first, and if another one counts

    def run(self) -> None:
        """Count until ``stop``."""
        while not self._stopping.is_set():
            try:
                if not self._count_as_leader():
                    self._forget()
                    self._stopping.wait(_RETRY)
            except WorkerError as error:
                _log.warning("Accounts cannot be counted", reason=str(error))
                self._forget()
                self._stopping.wait(_RETRY)

    def stop(self) -> None:
        self._stopping.set()

    def count(self) -> None:
        """Count now. Raises WorkerError."""
        now = self._utcnow()
        with self._database.begin_long(_LIMIT) as connection:
            rows = metrics.fleet(connection, codes=_CODES, expiring=_EXPIRING, ending=_ENDING, now=now)
        self._counted = now, _families(rows, now)
        self.duration = self._utcnow() - now

    def families(self) -> Sequence[Metric]:
        """The last count, if there is one of the last minutes."""
        counted = self._counted
        return counted[1] if counted and self._utcnow() - counted[0] < _STALE else ()

    def _count_as_leader(self) -> bool:
        """Count, and hold the lock until the next turn. False if another exporter holds it."""
        with self._database.begin() as connection:
            leads = metrics.lead(connection)
            if leads:
                self.count()
                self._stopping.wait(_INTERVAL)
        return leads

    def _forget(self) -> None:
        self._counted = self.duration = None


def _families(rows: Sequence[RowMapping], now: datetime) -> Sequence[Metric]:
    refreshed = max((row["last_refreshed_at"] for row in rows if row["last_refreshed_at"]), default=None)
    success = "last_success_timestamp_seconds", "The last refresh that gave a token"
    return [
        gauges(
            "accounts",
            "Accounts that use OAuth",
            ["client", "status"],
            # A state without accounts has 0 and is not missing, so that Prometheus sees the first ones as an increase.
            [
                *(((labels.client(name), state), 0) for name in {row["client"] for row in rows} for state in Status),
                *(((labels.client(row["client"]), row["status"]), row["accounts"]) for row in rows),
            ],
        ),
        gauges(
            "failing_accounts",
            "Accounts whose last refresh has failed, by the code of the failure",
            ["client", "code"],
            (
                ((labels.client(row["client"]), labels.code(row["code"])), row["accounts"])
                for row in rows
                if row["code"] is not None
            ),
        ),
        gauge("due_accounts", "Accounts that are due and not leased", _total(rows, "due")),
        gauge(
            "expired_accounts",
            "Active accounts without a living access token; those that never had one are included",
            _total(rows, "expired"),
        ),
        gauges(
            "accounts_expiring",
            "Active accounts whose access token ends within the span",
            ["within"],
            (((name,), _total(rows, f"expiring_{name}")) for name in _EXPIRING),
        ),
        gauges(
            "grants_ending",
            "Accounts whose grant ends within the span, so that the user must sign in again",
            ["within"],
            (((name,), _total(rows, f"ending_{name}")) for name in _ENDING),
        ),
        gauge("fleet_timestamp_seconds", "When all accounts were counted", seconds(now)),
        *([gauge(*success, seconds(refreshed))] if refreshed else []),
    ]


def _total(rows: Iterable[RowMapping], column: str) -> float:
    return float(sum(row[column] for row in rows))
