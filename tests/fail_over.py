"""Servers to which the name of a store leads for a while: a hot standby of Postgres, a replica of Redis."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from alembic.config import Config
from sqlalchemy import make_url

from alembic import command
from tests.moving_proxy import MovingProxy
from tests.stores import ROOT
from tests.waiting import wait_for
from worker.devkit.stack import PostgresServer, ValkeyServer

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
        standby = cleanup.enter_context(hot_standby(primary, directory / "primary", replica))
        proxy = cleanup.enter_context(MovingProxy(primary.url))
        yield FailOver(proxy, primary.url, standby)


@contextmanager
def hot_standby(primary: PostgresServer, source: Path, directory: Path) -> Iterator[str]:
    """The URL of a server that follows ``primary``, whose data are in ``source``. Restarts the primary."""
    primary.stop()
    shutil.copytree(source, directory, ignore=shutil.ignore_patterns(*_OF_THE_OWNER))
    primary.start()
    _make_standby(directory / "data", primary.url)
    standby = PostgresServer(directory, durable=False)
    standby.start()
    try:
        yield standby.url
    finally:
        standby.stop()


@contextmanager
def redis_replica(primary: str, directory: Path) -> Iterator[str]:
    """The URL of a Valkey that follows ``primary``. It has the same password, as replicas do."""
    url = make_url(primary)
    directory.mkdir()
    (directory / "password").write_text(str(url.password))
    server = ValkeyServer(directory, durable=False)
    server.start()
    try:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("masterauth", str(url.password))
            client.replicaof(url.host, url.port)
            wait_for(lambda: client.info("replication")["master_link_status"] == "up", about="the replica to follow")
        yield server.url
    finally:
        server.stop()


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
