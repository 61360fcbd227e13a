"""Counts refreshes from the ledger, some seconds behind the commits."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeAlias

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import Connection

from worker.db import metrics
from worker.exporter import labels
from worker.exporter.families import PREFIX

# How long a transaction that has taken an id may take to commit: longer than its statement may run.
_IN_FLIGHT = timedelta(seconds=15)
_PAGE = 50_000  # ids that one statement reads, in a fraction of a second
_PAGES = 4  # of a scrape at most; a counter that has fallen behind catches up with the next ones
_MILLISECONDS = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 15_000, 30_000)
_BUCKETS = tuple(f"{bucket / 1000:g}" for bucket in _MILLISECONDS)

_Labels: TypeAlias = tuple[str, str, str, str]  # client, outcome, code, trigger


class RefreshCounter:
    """Counts from the first call on, and from 0 after a restart, as the counters of any process do.

    An id is counted only if it was there some seconds ago. By then each transaction with a lower id has ended, because
    they commit in another order than they take their ids. Pruning does not matter: a line is counted once, when it is
    new. Not thread-safe.
    """

    def __init__(self) -> None:
        self._counted: int | None = None  # the highest id that was
        self._seen: list[tuple[datetime, int]] = []  # when which id was the highest
        self._totals: Counter[_Labels] = Counter()
        self._pending: Counter[_Labels] = Counter()
        self._within: list[int] = [0] * len(_MILLISECONDS)
        self._events = 0
        self._seconds = 0.0

    def advance(self, connection: Connection, *, now: datetime) -> None:
        """Count the lines that have become old enough."""
        newest = metrics.newest_event(connection)
        if self._counted is None or newest < self._counted:  # the first call, or Postgres was restored from a backup
            self._counted, self._seen = newest, []
        until = max((seen for at, seen in self._seen if at <= now - _IN_FLIGHT), default=self._counted)
        self._totals += self._pending
        self._pending.clear()
        for _ in range(_PAGES):
            if self._counted >= until:
                break
            end = min(self._counted + _PAGE, until)
            self._count(connection, self._counted, end)
            self._counted = end
        self._seen = [(at, seen) for at, seen in self._seen if seen > until and at <= now]
        self._seen.append((now, newest))

    def families(self) -> Sequence[Metric]:
        total = CounterMetricFamily(
            f"{PREFIX}refreshes",
            "Token requests to Microsoft by outcome, from the ledger",
            labels=("client", "outcome", "code", "trigger"),
        )
        for values, count in sorted({**dict.fromkeys(self._pending, 0), **self._totals}.items()):
            total.add_metric(values, count)
        buckets = [*zip(_BUCKETS, self._within, strict=True), ("+Inf", self._events)]
        duration = HistogramMetricFamily(
            f"{PREFIX}refresh_duration_seconds",
            "Time that Microsoft took to answer",
            buckets=buckets,
            sum_value=self._seconds,
        )
        return total, duration

    def _count(self, connection: Connection, after: int, until: int) -> None:
        for row in metrics.refreshes(connection, after=after, until=until, buckets=_MILLISECONDS):
            key = (
                labels.client(row["client"]),
                labels.outcome(row["outcome"]),
                labels.code(row["code"]),
                labels.trigger(row["trigger"]),
            )
            # A series begins with 0 and has its count from the next scrape on: Prometheus sees an increase from the
            # second sample of a series, and a rare failure has no other.
            (self._totals if key in self._totals else self._pending)[key] += row["events"]
            self._within = [sum(pair) for pair in zip(self._within, row["within"], strict=True)]
            self._events += row["events"]
            self._seconds += row["milliseconds"] / 1000
