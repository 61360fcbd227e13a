"""A Postgres whose name leads to its hot standby for a while."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from alembic.config import Config
from sqlalchemy import make_url

from alembic import command
from tests.moving_proxy import MovingProxy
from tests.stores import ROOT
from worker.devkit.stack import PostgresServer

_OF_THE_OWNER = ("lock", "port", "server.log", "postmaster.pid", "programs")  # files that a copy must not have


@dataclass(frozen=True, slots=True)
class FailOver:
    """``proxy.url`` is the name. It leads to the primary at first."""

    proxy: MovingProxy
    primary: str
    replica: str

    def begin(self) -> None:
        """End all connections. New ones lead to the replica."""
        self.proxy.point_to(self.replica)
        self.proxy.cut()

    def end(self) -> None:
        """Lead new connections to the primary. Those to the replica stay open."""
        self.proxy.point_to(self.primary)


@contextmanager
def postgres_fail_over(directory: Path) -> Iterator[FailOver]:
    primary, replica = PostgresServer(directory / "primary", durable=False), directory / "replica"
    with ExitStack() as cleanup:
        cleanup.callback(primary.stop)
        primary.start()
        _migrate(primary.url)
        primary.stop()
        shutil.copytree(directory / "primary", replica, ignore=shutil.ignore_patterns(*_OF_THE_OWNER))
        primary.start()
        _make_standby(replica / "data", primary.url)
        standby = PostgresServer(replica, durable=False)
        cleanup.callback(standby.stop)
        standby.start()
        proxy = cleanup.enter_context(MovingProxy(primary.url))
        yield FailOver(proxy, primary.url, standby.url)


def _make_standby(data: Path, primary: str) -> None:
    """Let a copy of the primary's data, made while that was stopped, follow it by streaming replication."""
    url = make_url(primary)
    (data / "standby.signal").touch()
    with (data / "postgresql.auto.conf").open("a") as configuration:
        server = f"host={url.host} port={url.port} user={url.username} password={url.password}"
        configuration.write(f"primary_conninfo = '{server}'\n")


def _migrate(url: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKER_DATABASE_URL", url)
        command.upgrade(Config(ROOT / "alembic.ini"), "head")
