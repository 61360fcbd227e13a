"""Who competes: each makes its accounts due, starts its processes, and can tell afterwards whether it did its work."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import create_engine

from bench import naive
from bench.provider import REFRESH_TOKEN, token
from bench.site import Site
from worker.devkit.stack.process import Process

_DUE = "UPDATE mail_credentials SET lease_id = NULL, refresh_due_at = now() - random() * interval '1 minute'"


@dataclass(frozen=True, slots=True)
class Contender(ABC):
    """How a fleet is kept fresh, with ``size`` of whatever it is made of."""

    may_lose: ClassVar[bool] = False  # tokens that are under way when it is stopped
    site: Site
    accounts: int

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    def make_due(self) -> None:
        """All accounts, at once."""

    @abstractmethod
    def start(self) -> list[Process]: ...

    @abstractmethod
    def stored(self) -> int:
        """How many refreshes are stored, in all."""

    @contextmanager
    def running(self) -> Iterator[list[Process]]:
        with ExitStack() as undo:
            processes = self.start()
            for process in processes:
                undo.callback(process.stop)
            yield processes


@dataclass(frozen=True, slots=True)
class Real(Contender):
    """The worker and beat, as an operator starts them."""

    children: int = 2
    connections: int = 64
    batch: int = 1000

    @property
    def name(self) -> str:
        return "worker"

    def make_due(self) -> None:
        self.site.sql(_DUE)

    def start(self) -> list[Process]:
        settings = {
            "WORKER_THREADS": str(self.connections),
            "WORKER_BATCH_SIZE": str(self.batch),
            "WORKER_SWEEP_INTERVAL": "1",
        }
        celery = ("-m", "celery", "-A", "worker")
        worker = (*celery, "worker", "--concurrency", str(self.children))
        return [self.site.start("worker", *worker, **settings), self.site.start("beat", *celery, "beat", **settings)]

    def stored(self) -> int:
        return int(self.site.sql("SELECT sum(version - 1) FROM mail_credentials")[0][0])


@dataclass(frozen=True, slots=True)
class Floor(Contender):
    """The hand-written loop."""

    processes: int = 4
    batch: int = 100

    @property
    def name(self) -> str:
        return "floor"

    def make_due(self) -> None:
        self.site.sql(_DUE)

    def start(self) -> list[Process]:
        arguments = ("-m", "bench.floor", str(self.batch))
        return [self.site.start(f"floor{number}", *arguments) for number in range(self.processes)]

    def stored(self) -> int:
        return int(self.site.sql("SELECT sum(version - 1) FROM mail_credentials")[0][0])


@dataclass(frozen=True, slots=True)
class Naive(Contender):
    """One task per account."""

    may_lose = True  # and does
    children: int = 2

    @property
    def name(self) -> str:
        return "naive"

    def make_due(self) -> None:
        naive.Base.metadata.create_all(create_engine(self.site.stack.database_url))
        self.site.sql("TRUNCATE naive_accounts")
        self.site.sql(
            "INSERT INTO naive_accounts (id, email, refresh_token, due_at)"
            " SELECT n, 'user' || n || '@contoso.test', %(token)s, now() FROM generate_series(1, %(accounts)s) AS n",
            token=token(REFRESH_TOKEN),
            accounts=self.accounts,
        )

    def start(self) -> list[Process]:
        celery = ("-m", "celery", "-A", "bench.naive")
        worker = (*celery, "worker", "--concurrency", str(self.children))
        return [
            self.site.start("naive", *worker, "--loglevel", "INFO"),
            self.site.start("naive-beat", *celery, "beat"),
        ]

    def stored(self) -> int:
        return int(self.site.sql("SELECT count(*) FROM naive_accounts WHERE access_token IS NOT NULL")[0][0])


@contextmanager
def work(contender: Contender) -> Iterator[list[Process]]:
    """The contender at work on a fleet that is due."""
    contender.site.redis().flushdb()
    contender.make_due()
    contender.site.sql("CHECKPOINT")
    with contender.running() as processes:
        yield processes
