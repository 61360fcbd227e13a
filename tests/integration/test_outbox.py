"""The outbox keeps the results that Postgres could not store, and removes them only once they are stored."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.constants import ANN, BOB
from tests.integration.outboxes import kept
from worker.cache import Cache, OutboxStore, RedisClient, connect
from worker.domain.account import account_id
from worker.domain.token import Sealed

ANN_ID, BOB_ID = account_id(ANN), account_id(BOB)
KEY = "token-worker:outbox"


@pytest.fixture(name="redis")
def _redis(redis_url: str) -> Iterator[RedisClient]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture(name="outbox")
def _outbox(redis: RedisClient) -> OutboxStore:
    return OutboxStore(redis)


def test_an_empty_outbox_is_empty(outbox: OutboxStore) -> None:
    """It is read before every lease."""
    assert kept(outbox) == {}


def test_a_value_is_kept_byte_for_byte(outbox: OutboxStore) -> None:
    """Each account has its own value. A sealed token with one changed byte is lost."""
    outbox.put({ANN_ID: bytes(range(256)), BOB_ID: b"bob's"})

    assert kept(outbox) == {ANN_ID: bytes(range(256)), BOB_ID: b"bob's"}


def test_the_newest_value_of_an_account_replaces_the_one_before(outbox: OutboxStore) -> None:
    """Both were refreshed while Postgres was down, and only the last token is worth storing."""
    outbox.put({ANN_ID: b"first", BOB_ID: b"bob's"})

    outbox.put({ANN_ID: b"second"})

    assert kept(outbox) == {ANN_ID: b"second", BOB_ID: b"bob's"}


def test_a_stored_value_is_removed(outbox: OutboxStore) -> None:
    """Only that value is removed."""
    outbox.put({ANN_ID: b"ann's", BOB_ID: b"bob's"})

    outbox.discard({ANN_ID: b"ann's"})

    assert kept(outbox) == {BOB_ID: b"bob's"}


def test_a_value_replaced_meanwhile_is_not_removed(outbox: OutboxStore) -> None:
    """While one worker stored the first value, another added a newer token, which is not stored yet."""
    outbox.put({ANN_ID: b"first"})
    outbox.put({ANN_ID: b"second"})

    outbox.discard({ANN_ID: b"first"})

    assert kept(outbox) == {ANN_ID: b"second"}


def test_a_second_removal_changes_nothing(outbox: OutboxStore) -> None:
    """Two workers drain the outbox at the same time."""
    outbox.put({ANN_ID: b"ann's"})

    outbox.discard({ANN_ID: b"ann's"})
    outbox.discard({ANN_ID: b"ann's"})

    assert kept(outbox) == {}


def test_values_never_expire(outbox: OutboxStore, redis: RedisClient) -> None:
    """It may be the only copy of a refresh token, and the length of an outage has no limit."""
    outbox.put({ANN_ID: b"ann's"})

    assert redis.ttl(KEY) == -1


def test_an_entry_of_the_cache_does_not_touch_the_outbox(outbox: OutboxStore, redis: RedisClient) -> None:
    """They share a RedisClient, and only the cache expires."""
    outbox.put({ANN_ID: b"ann's"})

    Cache(redis, ttl=timedelta(hours=1)).put({ANN_ID: (9, Sealed(b"entry"))})

    assert kept(outbox) == {ANN_ID: b"ann's"}


def test_a_value_is_removed_after_a_restart_of_redis(outbox: OutboxStore, redis: RedisClient) -> None:
    """A restarted server has lost its scripts."""
    outbox.put({ANN_ID: b"ann's"})
    outbox.discard({BOB_ID: b"to have the script loaded"})
    redis.script_flush()

    outbox.discard({ANN_ID: b"ann's"})

    assert kept(outbox) == {}


def test_the_outbox_counts_its_values(outbox: OutboxStore) -> None:
    """`status` shows the number to operators."""
    outbox.put({ANN_ID: b"first", BOB_ID: b"bob's"})
    outbox.put({ANN_ID: b"second"})

    assert outbox.size() == 2
