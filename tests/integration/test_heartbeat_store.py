"""Heartbeats in a real Redis: ages and clocks by the server's time, and values that no process has written."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from worker import clock
from worker.cache import HeartbeatStore, RedisClient, connect
from worker.domain.heartbeat import Heartbeat, Role

INDEX, PREFIX = "token-worker:processes", "token-worker:process"
TOLERANCE = timedelta(seconds=30)  # for a busy machine


@pytest.fixture(name="redis")
def _redis(redis_url: str) -> Iterator[RedisClient]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture(name="store")
def _store(redis: RedisClient) -> HeartbeatStore:
    return HeartbeatStore(redis)


def heartbeat(pid: int = 1, *, ahead: timedelta = timedelta(0)) -> Heartbeat:
    now = clock.utcnow() + ahead
    return Heartbeat(role=Role.WORKER, host="web-1", pid=pid, version="1.0", started_at=now, at=now)


def test_live_processes_are_read_with_their_age(store: HeartbeatStore) -> None:
    written = [heartbeat(1), heartbeat(2)]
    for each in written:
        store.put(each)

    processes = store.live()

    assert [process.heartbeat for process in processes] == written
    assert all(timedelta(0) <= process.age < TOLERANCE for process in processes)


def test_a_process_is_seen_once(store: HeartbeatStore) -> None:
    for _ in range(2):
        store.put(heartbeat())

    assert len(store.live()) == 1


def test_a_process_that_ends_is_removed(store: HeartbeatStore) -> None:
    store.put(heartbeat(1))
    store.put(heartbeat(2))
    store.remove(heartbeat(1))

    assert [process.heartbeat.pid for process in store.live()] == [2]


@pytest.mark.parametrize("minutes", [-11, 11])
def test_a_clock_that_differs_is_measured(store: HeartbeatStore, redis: RedisClient, minutes: int) -> None:
    """It is measured when the heartbeat was written, however old that is."""
    store.put(heartbeat(ahead=timedelta(minutes=minutes)))
    redis.pexpire(f"{PREFIX}:worker:web-1:1", 20_000)  # as if it were 40 seconds old, and the clock so much further

    [process] = store.live()

    assert abs(process.age - timedelta(seconds=40)) < TOLERANCE
    assert abs(process.skew - timedelta(minutes=minutes, seconds=40)) < TOLERANCE


def test_the_index_forgets_what_has_ended(store: HeartbeatStore, redis: RedisClient) -> None:
    redis.zadd(INDEX, {"worker:old:1": 1.0, "worker:forged:1": 9e15})

    store.put(heartbeat())

    assert redis.zrange(INDEX, 0, -1) == [b"worker:web-1:1"]
    assert 0 < redis.pttl(INDEX) <= 60_000
    assert 0 < redis.pttl(f"{PREFIX}:worker:web-1:1") <= 60_000


def test_a_foreign_index_is_replaced(store: HeartbeatStore, redis: RedisClient) -> None:
    redis.set(INDEX, "x")
    assert store.live() == []

    store.put(heartbeat())

    assert len(store.live()) == 1


def test_values_of_other_programs_count_as_none(store: HeartbeatStore, redis: RedisClient) -> None:
    store.put(heartbeat())
    for name in ("list", "junk", "eternal", "large"):
        redis.zadd(INDEX, {name: 2e9})
    redis.lpush(f"{PREFIX}:list", "x")
    redis.set(f"{PREFIX}:junk", "[" * 4000, ex=60)
    redis.set(f"{PREFIX}:large", "x" * 5_000_000, ex=60)
    redis.set(f"{PREFIX}:eternal", redis.get(f"{PREFIX}:worker:web-1:1") or b"")
    redis.zadd(INDEX, {"x" * 1_000_000: 2e9})

    assert [process.heartbeat.host for process in store.live()] == ["web-1"]


def test_at_most_a_thousand_processes_are_read(store: HeartbeatStore, redis: RedisClient) -> None:
    value = heartbeat()
    store.put(value)
    copy = redis.get(f"{PREFIX}:worker:web-1:1") or b""
    with redis.pipeline() as pipeline:
        for number in range(1500):
            pipeline.zadd(INDEX, {f"x:{number}": 2e9})
            pipeline.set(f"{PREFIX}:x:{number}", copy, ex=60)
        pipeline.execute()

    assert len(store.live()) == 1000


def test_the_time_of_the_last_sweep(store: HeartbeatStore, redis: RedisClient) -> None:
    assert store.since_sweep() is None

    store.note_sweep()
    since = store.since_sweep()
    assert since is not None
    assert timedelta(0) <= since < TOLERANCE

    redis.pexpire("token-worker:swept", 23 * 3_600_000)
    since = store.since_sweep()
    assert since is not None
    assert abs(since - timedelta(hours=1)) < TOLERANCE

    redis.persist("token-worker:swept")
    assert store.since_sweep() is None


def test_a_replaced_heartbeat_has_the_new_values(store: HeartbeatStore) -> None:
    store.put(heartbeat())
    changed = replace(heartbeat(), key_ids=("k1", "k2"), queues=("ondemand",))
    store.put(changed)

    assert [process.heartbeat for process in store.live()] == [changed]
