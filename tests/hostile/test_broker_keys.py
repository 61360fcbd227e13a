"""A writer to the broker may put anything under the keys that Celery's transport keeps beside the queues."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from tests.constants import ANN, BOB
from tests.e2e.deployment import Deployment
from tests.hostile.test_messages import message
from tests.waiting import wait_for
from worker.broker import ON_DEMAND, REFRESH, SWEEP, TaskSender
from worker.cache import connect
from worker.domain.account import account_id

QUEUES = (ON_DEMAND, SWEEP, REFRESH)
EXCHANGES = (*QUEUES, "celery.pidbox", "reply.celery.pidbox", "celeryev")
BINDINGS = [f"_kombu.binding.{exchange}" for exchange in EXCHANGES]
OTHERS = ["unacked", "unacked_index", "unacked_mutex", "_kombu.binding_deadlines"]
DEEP = b"[" * 100_000
JUNK = [b"", b"x", b"\xff\xfe", b"\x06\x16", b"a\x06\x16b", b"\x06\x16" * 9, DEEP]


@pytest.fixture(name="redis")
def _redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url) as client:
        yield client


def wrong_type(redis: Redis) -> None:
    redis.delete(*BINDINGS, *OTHERS)
    for exchange in EXCHANGES:
        redis.set(f"_kombu.binding_permanent.{exchange}", "x")
    redis.mset(dict.fromkeys([*BINDINGS, *OTHERS], "x"))


def wrong_type_for_text(redis: Redis) -> None:
    redis.delete(*BINDINGS, *OTHERS)
    for key in [*BINDINGS, *OTHERS]:
        redis.rpush(key, "x")


def wrong_content(redis: Redis) -> None:
    """Members that are no bindings, thousands of queues for each message, and messages overdue for redelivery."""
    redis.delete(*BINDINGS, *OTHERS)
    for exchange, key in zip(EXCHANGES, BINDINGS, strict=True):
        redis.sadd(key, *JUNK, *(f"{exchange}\x06\x16\x06\x16evil-{number}" for number in range(3000)))
    values = [*JUNK, b"[1, 2, 3]", b"[{}, [], {}]", b"null"]
    tags: dict[Any, Any] = {f"tag-{number}": value for number, value in enumerate(values)}
    redis.hset("unacked", mapping=tags)
    redis.zadd("unacked_index", dict.fromkeys([*tags, "missing", *JUNK], 1))
    redis.set("unacked_mutex", "x")


def nothing(redis: Redis) -> None:
    redis.delete(*BINDINGS, *OTHERS)


ATTACKS = [wrong_type, wrong_type_for_text, wrong_content, nothing]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_worker_and_beat_start(deployment: Deployment, redis: Redis, attack: Callable[[Redis], None]) -> None:
    deployment.add_due_accounts(ANN, BOB)
    attack(redis)

    processes = [deployment.worker(), deployment.celery("beat")]

    wait_for(deployment.all_refreshed, about="the refresh", processes=processes)
    assert redis.keys("evil-*") == []
    assert "Traceback" not in processes[0].output()


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_worker_and_beat_go_on(deployment: Deployment, redis: Redis, attack: Callable[[Redis], None]) -> None:
    deployment.add_due_accounts(ANN)
    processes = [deployment.worker(), deployment.celery("beat")]
    wait_for(deployment.all_refreshed, about="the first refresh", processes=processes)
    attack(redis)

    deployment.add_due_accounts(ANN, BOB)

    wait_for(deployment.all_refreshed, about="the refresh after it", processes=processes)
    assert redis.keys("evil-*") == []
    assert "Traceback" not in processes[0].output()


def test_a_consumer_asks_in_spite_of_it(deployment: Deployment, redis: Redis) -> None:
    """Its message reaches the queue once."""
    for attack in ATTACKS:
        attack(redis)
        sender = TaskSender(deployment.environment["WORKER_REDIS_URL"])
        sender.request_refresh(account_id(ANN), min_ttl=None, rejected=None)
        attack(redis)
        sender.request_refresh(account_id(ANN), min_ttl=None, rejected=None)
        sender.close()

        assert redis.llen(ON_DEMAND) == 2
        assert redis.keys("evil-*") == []
        redis.flushall()


def test_a_flood_of_messages_ends_with_its_writer(deployment: Deployment, redis: Redis) -> None:
    """Requests for accounts that need none, and batches. Those beyond a queue's limit are dropped."""
    beat, worker = deployment.celery("beat"), deployment.worker(concurrency=1)
    request = json.dumps(message("worker.refresh_account", str(account_id("nobody@contoso.com"))))
    for _ in range(100):
        redis.lpush(ON_DEMAND, *[request] * 2000)
    batch = json.dumps(message("worker.refresh_batch", "nobody"))
    redis.lpush(REFRESH, *[batch] * 20_000)

    deployment.add_due_accounts(ANN)

    wait_for(deployment.all_refreshed, about="the refresh", processes=[worker, beat])
    assert "Messages dropped" in worker.output()


def test_a_flood_of_broadcasts_ends_with_its_writer(deployment: Deployment, redis: Redis) -> None:
    beat, worker = deployment.celery("beat"), deployment.worker(concurrency=1)
    stopped = threading.Event()
    junk = json.dumps(message(body="x" * 10_000))

    def flood() -> int:
        number = 0
        while not stopped.is_set():
            with redis.pipeline(transaction=False) as pipeline:
                for _ in range(200):
                    pipeline.publish("/0.celery.pidbox", junk)
                pipeline.execute()
            number += 200
        return number

    thread = threading.Thread(target=flood)
    thread.start()
    stopped.wait(5)
    stopped.set()
    thread.join()
    deployment.add_due_accounts(ANN)

    wait_for(deployment.all_refreshed, about="the refresh", processes=[worker, beat])
    with deployment.broker() as app:
        wait_for(lambda: app.control.ping(timeout=2, limit=1), about="a reply to ping", processes=[worker])
