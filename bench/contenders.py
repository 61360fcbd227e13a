"""The contenders. Each makes its accounts due, starts its processes, and counts the refreshes that it has stored."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import NullPool, create_engine

from bench import naive
from bench.provider import REFRESH_TOKEN, token
from bench.site import Site
from worker.devkit.stack.process import Process


@dataclass(frozen=True, slots=True)
class Contender(ABC):
    """A way to keep a fleet fresh."""

    name: ClassVar[str]
    may_lose: ClassVar[bool] = False  # tokens of requests in flight when it is stopped
    site: Site
    accounts: int

    @abstractmethod
    def make_due(self) -> None:
        """Make all accounts due at once."""

    @abstractmethod
    def start(self) -> Iterator[Process]:
        """Start the processes one after the other."""

    @abstractmethod
    def stored(self) -> int:
        """The total number of stored refreshes."""

    @contextmanager
    def running(self) -> Iterator[list[Process]]:
        with ExitStack() as undo:
            processes = []
            for process in self.start():
                undo.callback(process.stop)
                processes.append(process)
            yield processes


@dataclass(frozen=True, slots=True)
class _OnCredentials(Contender):
    """A contender on the product's own table, where the site has stored the accounts."""

    def make_due(self) -> None:
        self.site.sql(
            "UPDATE mail_credentials SET lease_id = NULL, lease_until = NULL,"
            " refresh_due_at = now() - random() * interval '1 minute'"
        )

    def stored(self) -> int:
        return int(self.site.sql("SELECT sum(version - 1) FROM mail_credentials")[0][0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker(_OnCredentials):
    """The worker and beat, as an operator starts them."""

    name = "worker"
    children: int
    connections: int  # of each child
    batch: int

    def start(self) -> Iterator[Process]:
        settings = {
            "WORKER_CONNECTIONS": str(self.connections),
            "WORKER_BATCH_SIZE": str(self.batch),
            "WORKER_SWEEP_INTERVAL": "1",
        }
        celery = ("-m", "celery", "-A", "worker")
        yield self.site.start("worker", *celery, "worker", "--concurrency", str(self.children), **settings)
        yield self.site.start("beat", *celery, "beat", **settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor(_OnCredentials):
    """The hand-written loop."""

    name = "floor"
    processes: int
    batch: int

    def start(self) -> Iterator[Process]:
        for number in range(self.processes):
            yield self.site.start(f"floor{number}", "-m", "bench.floor", str(self.batch))


@dataclass(frozen=True, slots=True, kw_only=True)
class Naive(Contender):
    """One task per account."""

    name = "naive"
    may_lose = True
    children: int

    def make_due(self) -> None:
        naive.Base.metadata.create_all(create_engine(self.site.stack.database_url, poolclass=NullPool))
        self.site.sql("TRUNCATE naive_accounts")
        self.site.sql(
            "INSERT INTO naive_accounts (id, email, refresh_token, due_at)"
            " SELECT n, 'user' || n || '@contoso.test', %(token)s, now() FROM generate_series(1, %(accounts)s) AS n",
            token=token(REFRESH_TOKEN),
            accounts=self.accounts,
        )

    def start(self) -> Iterator[Process]:
        celery = ("-m", "celery", "-A", "bench.naive")
        worker = (*celery, "worker", "--concurrency", str(self.children))
        yield self.site.start("naive", *worker, "--loglevel", "INFO")
        yield self.site.start("naive-beat", *celery, "beat")

    def stored(self) -> int:
        return int(self.site.sql("SELECT count(*) FROM naive_accounts WHERE access_token IS NOT NULL")[0][0])


@contextmanager
def work(contender: Contender) -> Iterator[list[Process]]:
    """Run the contender on a fleet that is due, after a vacuum of all tables."""
    contender.site.redis().flushdb()
    contender.make_due()
    contender.site.sql("VACUUM (ANALYZE)")  # every table, also those of other contenders
    contender.site.sql("CHECKPOINT")
    with contender.running() as processes:
        yield processes
