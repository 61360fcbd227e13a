"""The environment of a measurement: embedded stores with production's settings, a provider, accounts and processes."""

import os
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import psycopg
import redis
import trustme
from sqlalchemy import URL, make_url

from bench.provider import ACCESS_TOKEN, CLIENT_ID, CLIENT_SECRET, LIFETIME, REFRESH_TOKEN, token
from worker import clock
from worker.bootstrap import Services, bootstrap
from worker.db import schema
from worker.devkit.stack import Stack
from worker.devkit.stack.process import Process
from worker.domain.account import Grant
from worker.domain.token import Secret
from worker.settings import Settings, load, set_variables, unset_variables
from worker.vault import generate_key

ROOT = Path(__file__).parents[1]
_WAIT_LIMIT = 60.0  # seconds
_GROUP = 500  # accounts

# The settings of docs/sizing.md. By default Postgres uses 128 MB on every machine, and has a checkpoint every five
# minutes.
_POSTGRES = {
    "shared_buffers": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // 4 // 2**20}MB",
    "max_wal_size": "8GB",
    "min_wal_size": "6GB",  # keeps segments for reuse, because the creation of one takes longer than a lease
    "checkpoint_timeout": "15min",
}


@dataclass(frozen=True, slots=True)
class Provider:
    """A running provider."""

    process: Process
    directory: Path
    authority: str

    def granted(self) -> int:
        """The number of tokens that it has granted."""
        return int(struct.unpack("<q", (self.directory / "granted").read_bytes())[0])


class Site:
    """The stores and the directory of one measurement. Its settings become those of this process and its children."""

    def __init__(self) -> None:
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        unset_variables()
        with ExitStack() as undo:
            undo.callback(unset_variables)
            self.directory = Path(tempfile.mkdtemp(prefix="token-worker-bench-"))
            self.directory.chmod(0o711)
            undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self._tune()
            self.stack = undo.enter_context(Stack(self.directory / "stores"))
            certificates = self._certificates()
            undo.callback(os.environ.pop, "REQUESTS_CA_BUNDLE", None)
            set_variables(
                {
                    "WORKER_DATABASE_URL": self.stack.database_url,
                    "WORKER_REDIS_URL": self.stack.redis_url,
                    "WORKER_ENCRYPTION_KEYS": generate_key("bench"),
                    "WORKER_CLIENT_ID": CLIENT_ID,
                    "WORKER_CLIENT_SECRET": CLIENT_SECRET,
                    "WORKER_LOG_FORMAT": "json",
                    "WORKER_RATE": "1000000",
                    "WORKER_CA_BUNDLE": str(certificates),
                    "REQUESTS_CA_BUNDLE": str(certificates),  # for contenders with MSAL's own HTTP client
                }
            )
            schema.upgrade()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    @contextmanager
    def provider(self, *, latency: timedelta = timedelta(0)) -> Iterator[Provider]:
        """Start a provider. Processes that are started inside the block use it."""
        (self.directory / "port").unlink(missing_ok=True)
        process = self.start("provider", "-m", "bench.provider", str(self.directory), str(latency.total_seconds()))
        try:
            wait_for("the provider's port", (self.directory / "port").exists, process)
            authority = f"https://localhost:{(self.directory / 'port').read_text()}/common"
            set_variables({"WORKER_AUTHORITY": authority})
            yield Provider(process, self.directory, authority)
        finally:
            process.stop()

    @contextmanager
    def services(self) -> Iterator[Services]:
        services = bootstrap(load(Settings))
        try:
            yield services
        finally:
            services.close()

    def start(self, name: str, *arguments: str, **environment: str) -> Process:
        """Start a Python process with the site's settings. Its output goes into ``NAME.log``."""
        log = self.directory / f"{name}.log"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        return Process([sys.executable, *arguments], log=log, environment=environment)

    def enrol(self, accounts: int) -> list[str]:
        """Store mailboxes with tokens of realistic size, by the product's own method. Returns the addresses."""
        emails = [f"user{number:07}@contoso{number % 100:02}.test" for number in range(accounts)]
        with self.services() as services:
            for start in range(0, accounts, _GROUP):
                services.accounts.save([_grant(email) for email in emails[start : start + _GROUP]])
        return emails

    def sql(self, statement: str, **values: Any) -> list[Any]:
        """Run one statement in its own transaction, without the product."""
        return sql(self.stack.database_url, statement, **values)

    @property
    def dsn(self) -> str:
        return dsn(self.stack.database_url)

    @contextmanager
    def another_database(self) -> Iterator[str]:
        """A copy of the site's own database, to which there must be no connection. Yields its URL."""
        own, name = make_url(self.stack.database_url), f"beside_{uuid4().hex}"
        aside = _text(own.set(database="postgres"))
        sql(aside, f"CREATE DATABASE {name} TEMPLATE {own.database}")
        try:
            yield _text(own.set(database=name))
        finally:
            sql(aside, f"DROP DATABASE {name} WITH (FORCE)")

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.stack.redis_url)

    def _tune(self) -> None:
        """Write the settings of Postgres. Some of them apply from the next start on."""
        with Stack(self.directory / "stores") as stack:
            for name, value in _POSTGRES.items():
                sql(stack.database_url, f"ALTER SYSTEM SET {name} = '{value}'")

    def _certificates(self) -> Path:
        authority = trustme.CA()
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(self.directory / "provider.pem")
        authority.cert_pem.write_to_path(self.directory / "ca.pem")
        return self.directory / "ca.pem"


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def dsn(url: str) -> str:
    """SQLAlchemy's URL in psycopg's form."""
    return url.replace("+psycopg", "")


def sql(url: str, statement: str, **values: Any) -> list[Any]:
    """Run one statement in its own transaction, without the product."""
    with psycopg.connect(dsn(url), autocommit=True) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def wait_for(what: str, condition: Callable[[], Any], *processes: Process, seconds: float = _WAIT_LIMIT) -> None:
    """Return once the condition holds. Raises RuntimeError after so many seconds, or if one of the processes ends."""
    end = time.monotonic() + seconds
    while not condition():
        for process in processes:
            if not process.alive():
                raise RuntimeError(f"a process has ended during the wait for {what}; {_tail(process)}")
        if time.monotonic() > end:
            tails = "\n\n".join(map(_tail, processes))
            raise RuntimeError(f"{what}: not within {seconds:.0f} s; {tails}")
        time.sleep(0.02)


def _tail(process: Process) -> str:
    return f"{process._log.name}:\n{process.output()[-3000:]}"


def _grant(email: str) -> Grant:
    return Grant(
        email=email,
        refresh_token=Secret(token(REFRESH_TOKEN)),
        access_token=Secret(token(ACCESS_TOKEN)),
        expires_at=clock.utcnow() + timedelta(seconds=LIFETIME),
    )
