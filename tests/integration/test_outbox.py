"""The outbox: what Postgres could not take is kept until it can, and forgotten only when it has been stored."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from redis import Redis

from tests.constants import ANN, BOB
from tests.integration.outboxes import kept
from worker.cache import Cache, OutboxStore, connect
from worker.domain.account import account_id
from worker.domain.token import Sealed

ANN_ID, BOB_ID = account_id(ANN), account_id(BOB)
KEY = "token-worker:outbox"


@pytest.fixture(name="redis")
def _redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture(name="outbox")
def _outbox(redis: Redis) -> OutboxStore:
    return OutboxStore(redis)


def test_an_empty_outbox_is_empty(outbox: OutboxStore) -> None:
    """It is looked into before every claim."""
    assert kept(outbox) == {}


def test_what_is_put_is_kept_byte_for_byte(outbox: OutboxStore) -> None:
    """For every account its own; a sealed token with a byte changed is lost."""
    outbox.put({ANN_ID: bytes(range(256)), BOB_ID: b"bob's"})

    assert kept(outbox) == {ANN_ID: bytes(range(256)), BOB_ID: b"bob's"}


def test_the_newest_value_of_an_account_replaces_the_one_before(outbox: OutboxStore) -> None:
    """Both were refreshed while Postgres was away: only the last token is worth storing."""
    outbox.put({ANN_ID: b"first", BOB_ID: b"bob's"})

    outbox.put({ANN_ID: b"second"})

    assert kept(outbox) == {ANN_ID: b"second", BOB_ID: b"bob's"}


def test_what_was_stored_is_forgotten(outbox: OutboxStore) -> None:
    """That one and no other."""
    outbox.put({ANN_ID: b"ann's", BOB_ID: b"bob's"})

    outbox.discard({ANN_ID: b"ann's"})

    assert kept(outbox) == {BOB_ID: b"bob's"}


def test_a_value_replaced_meanwhile_is_not_forgotten(outbox: OutboxStore) -> None:
    """While one worker stored the first, another has put a newer token: that one is stored nowhere yet."""
    outbox.put({ANN_ID: b"first"})
    outbox.put({ANN_ID: b"second"})

    outbox.discard({ANN_ID: b"first"})

    assert kept(outbox) == {ANN_ID: b"second"}


def test_what_is_forgotten_twice_is_forgotten_once(outbox: OutboxStore) -> None:
    """Two workers drain at the same time."""
    outbox.put({ANN_ID: b"ann's"})

    outbox.discard({ANN_ID: b"ann's"})
    outbox.discard({ANN_ID: b"ann's"})

    assert kept(outbox) == {}


def test_what_is_kept_never_expires(outbox: OutboxStore, redis: Redis) -> None:
    """It may be the only copy of a refresh token, and an outage lasts as long as it lasts."""
    outbox.put({ANN_ID: b"ann's"})

    assert redis.ttl(KEY) == -1


def test_an_entry_of_the_cache_does_not_touch_the_outbox(outbox: OutboxStore, redis: Redis) -> None:
    """They share a Redis, and one of them may be flushed by its age."""
    outbox.put({ANN_ID: b"ann's"})

    Cache(redis, ttl=timedelta(hours=1)).put({ANN_ID: (9, Sealed(b"entry"))})

    assert kept(outbox) == {ANN_ID: b"ann's"}


def test_a_value_stored_after_a_restart_of_redis_is_forgotten_too(outbox: OutboxStore, redis: Redis) -> None:
    """A restarted server has forgotten its scripts."""
    outbox.put({ANN_ID: b"ann's"})
    outbox.discard({BOB_ID: b"to have the script loaded"})
    redis.script_flush()

    outbox.discard({ANN_ID: b"ann's"})

    assert kept(outbox) == {}


def test_it_knows_how_many_accounts_wait(outbox: OutboxStore) -> None:
    """An operator's question."""
    outbox.put({ANN_ID: b"first", BOB_ID: b"bob's"})
    outbox.put({ANN_ID: b"second"})

    assert outbox.size() == 2
