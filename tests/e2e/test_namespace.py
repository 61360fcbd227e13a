"""Processes with a namespace: all their keys and queues carry it, and those of another fleet stay as they are."""

from typing import Any
from uuid import uuid4

import pytest
import redis

from tests.e2e.deployment import BIN, Deployment
from tests.e2e.flower import LOGIN, Flower
from tests.factories import emails
from tests.waiting import wait_for
from worker.broker import TaskSender
from worker.celery import Worker
from worker.domain.account import account_id

QUEUES = ("ondemand", "sweep", "refresh")
MESSAGE = b"of another fleet"


@pytest.fixture(name="blue")
def _blue(deployment: Deployment) -> Deployment:
    deployment.environment["WORKER_NAMESPACE"] = "blue"
    return deployment


def connected(deployment: Deployment) -> "redis.Redis":
    return redis.Redis.from_url(deployment.environment["WORKER_REDIS_URL"])


def test_a_fleet_leaves_the_keys_and_queues_of_another_alone(blue: Deployment) -> None:
    """Worker, beat, Flower and a consumer's request meet in the namespace, and nothing of theirs is outside."""
    client = connected(blue)
    for queue in QUEUES:
        client.lpush(queue, MESSAGE)
    before = set(client.scan_iter())
    blue.add_due_accounts(*emails(3))
    worker, beat = blue.worker("watched"), blue.celery("beat")
    flower = Flower(blue, FLOWER_BASIC_AUTH=LOGIN)
    wait_for(blue.all_refreshed, about="every account to be refreshed", processes=[worker, beat])

    sender = TaskSender(blue.environment["WORKER_REDIS_URL"], prefix="blue:")
    sender.request_refresh(account_id(emails(1)[0]), min_ttl=86_400, rejected=None)
    sender.close()
    processes = [worker, beat, flower.process]
    wait_for(lambda: "refresh_account" in worker.output(), about="the request of a consumer", processes=processes)
    wait_for(
        lambda: (
            {"worker.sweep", "worker.refresh_batch"}
            <= {task["name"] for task in flower.json("/api/tasks?state=SUCCESS").values()}
        ),
        about="tasks in Flower",
        processes=processes,
    )

    assert [name.partition("@")[0] for name in flower.json("/api/workers?refresh=true")] == ["watched"]
    assert "watched@" in blue.run([str(BIN / "celery"), "-A", "worker", "inspect", "ping"]).stdout
    assert [client.lrange(queue, 0, -1) for queue in QUEUES] == [[MESSAGE]] * 3
    assert {key for key in client.scan_iter() if not key.startswith(b"blue:")} == before
    channels: Any = client.pubsub_channels()
    assert not [channel for channel in channels if not channel.startswith(b"blue:")]


def test_the_queue_is_bounded_in_a_namespace(blue: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its limit every sweep would add batches, and no worker would ever catch up."""
    for name, value in blue.environment.items():
        monkeypatch.setenv(name, value)
    client, app = connected(blue), Worker()
    assert app.queue_room() == 64
    client.lpush("blue:refresh", *("x" * 10))

    assert app.queue_room() == 54
    app.close()


def test_a_foreign_key_in_the_place_of_a_queue_is_deleted(blue: Deployment) -> None:
    """Before a worker starts and while it runs. Without a namespace, too, a worker would not start with it."""
    client = connected(blue)
    client.set("blue:refresh", "x")
    client.set("ondemand", "x")

    worker = blue.worker(concurrency=1)
    client.set("blue:ondemand", "x")
    wait_for(lambda: not client.exists("blue:ondemand"), about="the key to be deleted", processes=[worker])

    assert not client.exists("blue:refresh")
    assert client.get("ondemand") == b"x"


def test_a_worker_of_another_fleet_does_not_start(deployment: Deployment) -> None:
    client, stranger = connected(deployment), str(uuid4())
    client.set("token-worker:fleet", stranger)

    process = deployment.celery("worker")
    assert process.wait(180) == 4
    refused = deployment.cli("refresh", emails(1)[0])

    assert process.output().startswith("Configuration error: Redis holds the keys of a fleet with another database")
    assert "WORKER_NAMESPACE" in process.output()
    assert "redis-cli DEL token-worker:fleet" in process.output()
    assert "Traceback" not in process.output()
    assert client.get("token-worker:fleet") == stranger.encode()
    assert refused.returncode != 0


def test_a_worker_that_starts_without_postgres_does_no_harm_to_another_fleet(deployment: Deployment) -> None:
    """It cannot know whose keys these are. It refuses as soon as Postgres answers."""
    client = connected(deployment)
    deployment.add_due_accounts(*emails(1))
    url = deployment.environment["WORKER_DATABASE_URL"]
    nowhere = url.replace(url.rpartition("@")[2].partition("/")[0], "127.0.0.1:1")
    client.set("token-worker:fleet", str(uuid4()))
    client.hset("token-worker:outbox", str(uuid4()), "waits")

    worker = deployment.worker(WORKER_DATABASE_URL=nowhere)
    deployment.send("worker.sweep", queue="sweep")
    wait_for(lambda: "cannot be used" in worker.output(), about="a failed sweep", processes=[worker])

    assert client.hlen("token-worker:outbox") == 1
    assert client.llen("refresh") == 0
