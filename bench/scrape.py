"""``python -m bench.scrape`` measures /metrics: a scrape, and the count of all accounts in the background.

A scrape comes every 15 seconds, and the refreshes of that time are in the ledger. It is measured in quiet times and
after an outage, when every account is due and the longest overdue ones are leased.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime, timedelta

import click
from prometheus_client import CollectorRegistry, generate_latest

from bench import report
from bench.report import Line, at_most
from bench.scale import Table, filled
from bench.site import Site
from worker import clock
from worker.db.session import Database
from worker.exporter.fleet import Fleet
from worker.exporter.process import make_collector
from worker.settings import ExporterSettings, load

_INTERVAL = timedelta(seconds=15)
_CYCLE = timedelta(minutes=45)  # the mean time between two refreshes of an account
_LEASED = 5_000  # the accounts of 20 batches under way at the same time
_BATCH = 250
_TARGET = 200  # milliseconds


class _Clock:
    """Goes on by the interval of scrapes, without waiting for it."""

    def __init__(self) -> None:
        self.now = clock.utcnow()

    def __call__(self) -> datetime:
        return self.now


@click.command(help=__doc__)
@click.option("--accounts", type=click.IntRange(min=1_000), default=1_000_000, show_default=True)
@click.option("--scrapes", type=click.IntRange(min=2), default=20, show_default=True)
def main(accounts: int, scrapes: int) -> None:
    with Site() as site, site.provider(), filled(site, [accounts]) as [table]:
        click.echo("\n".join(report.table(_lines(table, scrapes))))


def _lines(table: Table, scrapes: int) -> Sequence[Line]:
    now, part = _Clock(), f"{table.accounts:,} accounts"
    settings = load(ExporterSettings, database_url=table.url)
    database = Database(settings.database_url.get_secret_value())
    fleet = Fleet(database, utcnow=now)
    with closing(make_collector(settings, database, fleet, utcnow=now)) as collector:
        registry = CollectorRegistry()
        registry.register(collector)

        def scrapes_taken(times: int) -> list[float]:
            return [_scrape(registry, table, now) for _ in range(times)]

        count = statistics.median(_timed(fleet.count) for _ in range(5))
        scrapes_taken(3)  # the first ones find no refreshes to count, and fill the caches
        quiet = scrapes_taken(scrapes)
        now.now += timedelta(hours=2)
        _lease(table, now.now)
        late = scrapes_taken(scrapes)
    return [
        Line(part=part, figure="scrape, median", **at_most(_TARGET, statistics.median(quiet)), unit="ms"),
        Line(part=part, figure="scrape, slowest", value=max(quiet), unit="ms"),
        Line(part=part, figure="after an outage, median", **at_most(_TARGET, statistics.median(late)), unit="ms"),
        Line(part=part, figure="after an outage, slowest", value=max(late), unit="ms"),
        Line(part=part, figure="count of all accounts", value=count, unit="ms"),
    ]


def _scrape(registry: CollectorRegistry, table: Table, now: _Clock) -> float:
    """Refresh as many accounts as are due in the interval, and then scrape. Returns the milliseconds of the scrape."""
    for _ in range(round(table.accounts * (_INTERVAL / _CYCLE) / _BATCH)):
        table.work()
    now.now += _INTERVAL
    return _timed(lambda: generate_latest(registry))


def _timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def _lease(table: Table, now: datetime) -> None:
    """Processes hold the accounts that have been due longest."""
    table.sql(
        """
        UPDATE mail_credentials SET lease_id = gen_random_uuid(), lease_until = %(until)s WHERE id IN (
            SELECT id FROM mail_credentials WHERE refresh_due_at <= %(now)s ORDER BY refresh_due_at LIMIT %(limit)s)
        """,
        now=now,
        until=now + timedelta(hours=1),
        limit=min(_LEASED, table.accounts // 10),
    )


if __name__ == "__main__":
    main()
