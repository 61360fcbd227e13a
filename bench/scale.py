"""Part 3: the time of lease, persist and sweep in tables of different sizes, and the bytes of an account.

SQL fills the tables with rows as wide as real ones. The product's own statements work on them in turns, with a batch of
each table at a time. Each table has a database of its own.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from sqlalchemy import Connection, text

from bench.provider import ACCESS_TOKEN, REFRESH_TOKEN
from bench.quantiles import p99
from bench.site import Site, sql
from worker import clock
from worker.db import events, leases
from worker.db.events import Success
from worker.db.session import Database
from worker.domain.account import Lease, LeaseId, Status
from worker.domain.policy import AccountUpdate
from worker.domain.token import Sealed

_LEASE = timedelta(seconds=150)
_CYCLE = timedelta(minutes=36)  # the mean time between two refreshes of an account
_OVERHEAD = 32  # bytes of a sealed value beside the token
_BATCH = 250

Result = TypeVar("Result")

# Due times are spread over a cycle, and some accounts are due now. A tenth are paused.
_FILL = """
    INSERT INTO mail_credentials (id, email, access_token, refresh_token, token_expiry,
        token_obtained_at, refresh_due_at, status, version, last_refreshed_at, signed_in_at, created_at, updated_at)
    SELECT gen_random_uuid(), 'user' || n || '@contoso.test', %(access)s::bytea, %(refresh)s::bytea,
        %(now)s + interval '1 hour', %(now)s,
        CASE WHEN n %% 10 > 0 THEN %(now)s + random() * %(cycle)s::interval END,
        CASE WHEN n %% 10 > 0 THEN 'active' ELSE 'paused' END, 2, %(now)s, %(now)s, %(now)s, %(now)s
    FROM generate_series(%(first)s::int, %(last)s::int) AS n
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds of one kind of work at one size.

    A commit waits until the disk has the log. This is most of the time of the slowest ones, and depends on other writes
    and not on the table. So there is also a p99 of the statements without the commit.
    """

    accounts: int
    work: str
    p50: float
    p99: float
    p99_before_commit: float
    wal: float  # bytes per account, of the median batch


class _Spent(NamedTuple):
    """Milliseconds of one transaction, and the growth of the log meanwhile in bytes."""

    before_commit: float
    total: float
    wal: float


@dataclass(frozen=True, slots=True)
class Weight:
    """The bytes of one size: per account, and of the ledger per refresh."""

    accounts: int
    table: float
    indexes: float
    ledger: float  # with its indexes
    index_used: bool


class Table:
    """A database with accounts of one size. It measures the time of the statements."""

    def __init__(self, url: str, accounts: int) -> None:
        self.url = url
        self._database = Database(url)
        self.accounts = accounts
        self.refreshed = 0
        self._step = _CYCLE * _BATCH / accounts  # the time in which a batch becomes due
        self._now = clock.utcnow()
        self._access = Sealed(b"x" * (ACCESS_TOKEN + _OVERHEAD))
        self._refresh = Sealed(b"x" * (REFRESH_TOKEN + _OVERHEAD))
        self._spent: dict[str, list[_Spent]] = {"claim": [], "persist": [], "sweep": []}

    def sql(self, statement: str, **values: Any) -> list[Any]:
        return sql(self.url, statement, **values)

    def close(self) -> None:
        self._database.close()

    def fill(self) -> None:
        self.sql("TRUNCATE mail_credentials, refresh_events, refresh_successes")
        step, now = 50_000, clock.utcnow()
        for first in range(1, self.accounts + 1, step):
            self.sql(
                _FILL,
                access=self._access,
                refresh=self._refresh,
                now=now,
                cycle=_CYCLE,
                first=first,
                last=min(first + step - 1, self.accounts),
            )
        self._now = now + 2 * self._step
        self.sql("VACUUM ANALYZE mail_credentials")
        self.sql("CHECKPOINT")

    def work(self) -> None:
        """Sweep, lease and persist the accounts that have become due since the last batch."""
        now = self._now
        self._timed("sweep", partial(self._sweep, now))
        leased = self._timed("claim", partial(self._lease, now))
        if leased:
            self._timed("persist", partial(self._persist, leased, now))
            self.refreshed += len(leased)
        self._now += self._step

    def costs(self, stretches: int) -> list[Cost]:
        """The costs over all batches.

        The p99 is the median of so many stretches, so that a stall of the disk does not count. The bytes of the log are
        those of the median batch, because vacuum writes to the log, too.
        """
        batch = self.refreshed / len(self._spent["claim"])
        return [
            Cost(
                self.accounts,
                work,
                p50=statistics.median(each.total for each in spent),
                p99=p99([each.total for each in spent], stretches),
                p99_before_commit=p99([each.before_commit for each in spent], stretches),
                wal=statistics.median(each.wal for each in spent) / batch,
            )
            for work, spent in self._spent.items()
        ]

    def weight(self) -> Weight:
        [(table, indexes)] = self.sql(
            "SELECT pg_table_size('mail_credentials')::float8, pg_indexes_size('mail_credentials')::float8"
        )
        [(ledger,)] = self.sql(
            "SELECT pg_total_relation_size('refresh_successes_default')::float8 / sum(cardinality(refreshes))"
            " FROM refresh_successes"
        )
        return Weight(self.accounts, table / self.accounts, indexes / self.accounts, ledger, self._uses_index())

    def size(self) -> float:
        """The bytes of the table with its indexes."""
        return float(self.sql("SELECT pg_total_relation_size('mail_credentials')::float8")[0][0])

    def _timed(self, work: str, do: Callable[[Connection], Result]) -> Result:
        written = self._written()
        begin = time.perf_counter()
        with self._database.begin() as connection:
            result = do(connection)
            before_commit = _since(begin)
        total = _since(begin)
        self._spent[work].append(_Spent(before_commit, total, self._written() - written))
        return result

    def _written(self) -> float:
        """The bytes of the write-ahead log so far."""
        with self._database.begin() as connection:
            return float(connection.execute(text("SELECT pg_current_wal_insert_lsn() - '0/0'")).scalar_one())

    def _sweep(self, now: datetime, connection: Connection) -> int:
        return leases.count_due(connection, client="default", limit=64 * _BATCH, now=now)

    def _lease(self, now: datetime, connection: Connection) -> list[Lease]:
        lease_id = LeaseId(uuid4())
        return leases.lease_due(connection, client="default", lease_id=lease_id, limit=_BATCH, lease=_LEASE, now=now)

    def _persist(self, leased: Sequence[Lease], now: datetime, connection: Connection) -> None:
        leases.persist(connection, [self._update(lease, now) for lease in leased], now=now)
        successes = [Success(lease.account_id, lease.client, now, 150) for lease in leased]
        events.record_successes(connection, successes, trigger="schedule")

    def _update(self, lease: Lease, now: datetime) -> AccountUpdate:
        return AccountUpdate(
            account_id=lease.account_id,
            email=lease.email,
            based_on=lease.version,
            lease_id=lease.lease_id,
            status=Status.ACTIVE,
            due_at=now + _CYCLE,
            access_token=self._access,
            obtained_at=now,
            expires_at=now + timedelta(hours=1),
            refresh_token=self._refresh,
            replaces=sha256(lease.refresh_token).digest(),
        )

    def _uses_index(self) -> bool:
        """Whether the statement that leases reads the partial index and scans no table."""
        statement = text("EXPLAIN (FORMAT JSON) " + leases._LEASE_DUE.text)
        now = clock.utcnow()
        given = {"client": "default", "limit": _BATCH, "lease_id": uuid4(), "lease_until": now, "now": now}
        with self._database.begin() as connection:
            plan = connection.execute(statement, {**given, "long_ago": now}).scalar_one()
        text_of_plan = json.dumps(plan)
        return "ix_mail_credentials_due" in text_of_plan and "Seq Scan" not in text_of_plan


def _since(begin: float) -> float:
    return (time.perf_counter() - begin) * 1000


@dataclass(frozen=True, slots=True)
class Bloat:
    """The effect of cycles of refreshes: the growth of the table, its dead rows, and the number of autovacuums."""

    cycles: int
    growth: float
    dead_share: float
    autovacuums: int


def hurry_vacuum(site: Site) -> None:
    """Let autovacuum run every second instead of every minute, and without pauses.

    A cycle of half an hour takes seconds here, so autovacuum still runs less often per cycle than in production.
    Otherwise the smallest table, which has the most cycles, would have the most dead rows.
    """
    site.sql("ALTER SYSTEM SET autovacuum_naptime = '1s'")
    site.sql("ALTER SYSTEM SET autovacuum_vacuum_cost_delay = 0")
    site.sql("SELECT pg_reload_conf()")


@contextmanager
def filled(site: Site, sizes: Sequence[int]) -> Iterator[list[Table]]:
    """A table of each size. There must be no connection to the site's own database."""
    with ExitStack() as undo:
        urls = [undo.enter_context(site.another_database()) for _ in sizes]
        tables = [undo.enter_context(closing(Table(*each))) for each in zip(urls, sizes, strict=True)]
        for table in tables:
            table.fill()
        yield tables


def bloat(table: Table, cycles: int) -> Bloat:
    """Refresh every account so many times, with autovacuum as the migrations set it. Call ``hurry_vacuum`` before."""
    before = table.size()
    for _ in range(cycles * table.accounts // _BATCH):
        table.work()
    if table.refreshed <= 0.8 * cycles * table.accounts:  # some are paused
        raise RuntimeError("the cycles have not been worked through")
    [(dead, live, vacuums)] = table.sql(
        "SELECT n_dead_tup, n_live_tup, autovacuum_count FROM pg_stat_user_tables WHERE relname = 'mail_credentials'"
    )
    return Bloat(cycles, table.size() / before, dead / max(1, live), vacuums)
