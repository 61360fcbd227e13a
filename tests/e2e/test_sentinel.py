"""Sentinel names another primary: cache, broker, beat and consumers follow it within seconds."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.e2e.deployment import Deployment
from tests.e2e.flower import LOGIN, Flower, free_port
from tests.factories import emails
from tests.waiting import wait_for
from worker.broker import TaskSender
from worker.cache import connect
from worker.devkit.stack import ValkeyServer
from worker.devkit.stack.process import Process
from worker.devkit.stack.programs import find_valkey
from worker.domain.account import account_id

NAME = "mail"
RECOVERY = 10.0  # seconds from the new primary to the refresh of an account that is due


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A primary with a replica, and a sentinel."""

    password: str
    port: int
    primary: ValkeyServer
    sentinel: "redis.Redis"

    def url(self, hosts: str) -> str:
        return f"sentinel://:{self.password}@{hosts}/0?master={NAME}&sentinel_password=of-the-sentinel"

    @property
    def url_with_a_dead_sentinel(self) -> str:
        return self.url(f"127.0.0.1:1,127.0.0.1:{self.port}")

    def address(self) -> tuple[str, int]:
        found: Any = self.sentinel.sentinel_get_master_addr_by_name(NAME)
        return found  # type: ignore[no-any-return]

    def fail_over(self) -> None:
        """Kill the primary. Returns once the sentinel names the other server."""
        before = self.address()
        self.primary.kill()
        wait_for(lambda: self.address() != before, about="another primary")


@pytest.fixture(name="watched")
def _watched(tmp_path: Path) -> Iterator[Watched]:
    with ExitStack() as cleanup:
        primary, replica = (ValkeyServer(tmp_path / name, durable=False) for name in ("primary", "replica"))
        for server in (primary, replica):
            cleanup.callback(server.stop)
        primary.start()
        password = (tmp_path / "primary" / "password").read_text()
        (tmp_path / "replica").mkdir()
        (tmp_path / "replica" / "password").write_text(password)
        replica.start()
        port, own = int(primary.url.rpartition(":")[2].partition("/")[0]), free_port()
        with redis.Redis.from_url(replica.url) as client:
            client.config_set("masterauth", password)
            client.replicaof("127.0.0.1", port)
            wait_for(lambda: client.info("replication")["master_link_status"] == "up", about="the replica to follow")
        configuration = tmp_path / "sentinel.conf"
        configuration.write_text(
            f"port {own}\nbind 127.0.0.1\nrequirepass of-the-sentinel\n"
            f"sentinel monitor {NAME} 127.0.0.1 {port} 1\nsentinel auth-pass {NAME} {password}\n"
            f"sentinel down-after-milliseconds {NAME} 1000\nsentinel failover-timeout {NAME} 5000\n"
        )
        process = Process([str(find_valkey()), str(configuration), "--sentinel"], log=tmp_path / "sentinel.log")
        cleanup.callback(process.kill)
        sentinel = cleanup.enter_context(redis.Redis(port=own, password="of-the-sentinel"))
        wait_for(lambda: NAME in process.output() and _replicas(sentinel), about="the sentinel to know the replica")
        yield Watched(
            password=password,
            port=own,
            primary=primary,
            sentinel=sentinel,
        )


def _replicas(sentinel: "redis.Redis") -> bool:
    try:
        return bool(sentinel.sentinel_slaves(NAME))
    except redis.RedisError:
        return False


def _answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def test_worker_beat_and_flower_follow_the_primary(deployment: Deployment, watched: Watched) -> None:
    # Flower looks at the first sentinel only.
    deployment.environment["WORKER_REDIS_URL"] = watched.url(f"127.0.0.1:{watched.port},127.0.0.1:1")
    processes = [deployment.worker(), deployment.celery("beat")]
    flower = Flower(deployment, FLOWER_BASIC_AUTH=LOGIN)
    deployment.add_due_accounts(*emails(2))
    wait_for(deployment.all_refreshed, about="the first refresh", processes=processes)

    watched.fail_over()
    deployment.add_due_accounts("later@contoso.com")

    wait_for(deployment.all_refreshed, about="work after the fail-over", processes=processes, seconds=RECOVERY)
    lengths = flower.json("/api/queues/length")["active_queues"]
    assert {queue["name"] for queue in lengths} == {"ondemand", "sweep", "refresh"}


def test_a_consumer_follows_the_primary(watched: Watched) -> None:
    """Its cache, and its requests to the workers."""
    sender = TaskSender(watched.url_with_a_dead_sentinel)
    with connect(watched.url_with_a_dead_sentinel) as client:
        sender.request_refresh(account_id("ann@contoso.com"), min_ttl=None, rejected=None)
        assert client.llen("ondemand") == 1

        watched.fail_over()

        wait_for(lambda: _answers(client), about="the cache to answer", seconds=RECOVERY)
        before = client.llen("ondemand")
        sender.request_refresh(account_id("ann@contoso.com"), min_ttl=None, rejected=None)
        assert client.llen("ondemand") == before + 1
    sender.close()
