"""The name of Redis leads to a replica for some seconds, as after a fail-over. Each process finds the primary again."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.e2e.deployment import Deployment
from tests.factories import emails
from tests.fail_over import redis_replica
from tests.moving_proxy import MovingProxy
from tests.waiting import wait_for
from worker.cache import OutboxStore, connect
from worker.devkit.stack import Stack
from worker.domain.account import account_id
from worker.domain.errors import Unavailable

AT_REPLICA = 5.0  # seconds
RECOVERY = 10.0  # seconds from the end of the fault to the refresh of an account that is due


@pytest.fixture(name="replica")
def _replica(stack: Stack, tmp_path: Path) -> Iterator[str]:
    """The URL of a replica of the session's Redis."""
    with redis_replica(stack.redis_url, tmp_path / "replica") as url:
        yield url


@pytest.fixture(name="proxy")
def _proxy(redis_url: str) -> Iterator[MovingProxy]:
    with MovingProxy(redis_url) as proxy:
        yield proxy


@pytest.fixture(name="orphan")
def _orphan(replica: str) -> str:
    """A replica that has lost its primary, and refuses reads for it."""
    with redis.Redis.from_url(replica) as client:
        client.config_set("replica-serve-stale-data", "no")
        client.replicaof("127.0.0.1", 1)
    return replica


def test_a_client_that_meets_a_replica_connects_anew(proxy: MovingProxy, redis_url: str, replica: str) -> None:
    """The connection itself is sound, so redis-py would keep it for ever."""
    with connect(proxy.url) as client:
        outbox, value = OutboxStore(client), {account_id("ann@contoso.com"): b"value"}
        proxy.point_to(replica)
        with pytest.raises(Unavailable, match="ReadOnlyError"):
            outbox.put(value)
        proxy.point_to(redis_url)

        outbox.put(value)


def test_a_client_that_may_not_even_read_connects_anew(proxy: MovingProxy, redis_url: str, orphan: str) -> None:
    """The replica answers MASTERDOWN to all reads."""
    with connect(proxy.url) as client:
        outbox, accounts = OutboxStore(client), [account_id("ann@contoso.com")]
        proxy.point_to(orphan)
        with pytest.raises(Unavailable, match="MasterDownError"):
            outbox.get_many(accounts)
        proxy.point_to(redis_url)

        assert outbox.get_many(accounts) == {}


def test_beat_and_worker_recover(deployment: Deployment, proxy: MovingProxy, redis_url: str, replica: str) -> None:
    """Both connect while the name leads to the replica. Beat would stay there, and the worker would exit."""
    deployment.environment["WORKER_REDIS_URL"] = proxy.url
    processes = [deployment.worker(), deployment.celery("beat")]
    deployment.add_due_accounts(*emails(2))
    wait_for(deployment.all_refreshed, about="the first refresh", processes=processes)

    proxy.point_to(replica)
    proxy.cut()
    time.sleep(AT_REPLICA)
    proxy.point_to(redis_url)
    deployment.add_due_accounts("later@contoso.com")

    wait_for(deployment.all_refreshed, about="work after the fault", processes=processes, seconds=RECOVERY)


def test_they_survive_a_demotion(deployment: Deployment, redis_url: str) -> None:
    """Redis becomes a replica under open connections, and ends the worker's blocking read with an error of its own."""
    processes = [deployment.worker(), deployment.celery("beat")]
    deployment.add_due_accounts(*emails(2))
    wait_for(deployment.all_refreshed, about="the first refresh", processes=processes)

    with redis.Redis.from_url(redis_url) as client:
        client.replicaof("127.0.0.1", 1)
        try:
            time.sleep(AT_REPLICA)
        finally:
            client.replicaof("NO", "ONE")
    deployment.add_due_accounts("later@contoso.com")

    wait_for(deployment.all_refreshed, about="work after the fault", processes=processes, seconds=RECOVERY)
