"""The cache of a consumer holds few entries for seconds, and never replaces an entry by an older one."""

from dataclasses import replace

import pytest

from tests.factories import TurnedClock
from worker.domain.account import Status, account_id
from worker.domain.cache_entry import CacheEntry
from worker.service.tokens.cache import LocalCache


def _entry(number: int = 0, *, version: int = 1, status: Status = Status.ACTIVE) -> CacheEntry:
    email = f"user{number}@contoso.com"
    return CacheEntry(account_id=account_id(email), email=email, status=status, version=version)


@pytest.fixture(name="clock")
def _clock() -> TurnedClock:
    return TurnedClock()


def test_it_drops_the_least_recently_used_entry_above_its_limit(clock: TurnedClock) -> None:
    """A process that serves a million mailboxes keeps a thousand entries."""
    cache = LocalCache(utcnow=clock)
    cache.put(_entry(number) for number in range(1000))
    assert cache.get(_entry(0).account_id)

    cache.put([_entry(1000)])

    assert cache.get(_entry(0).account_id) == _entry(0)
    assert cache.get(_entry(1).account_id) is None
    assert len(cache._entries) == 1000


def test_an_entry_is_dropped_after_ten_seconds(clock: TurnedClock) -> None:
    """It is not returned either if the clock is set back to a time before it was put."""
    cache = LocalCache(utcnow=clock)
    cache.put([_entry()])

    clock.advance(seconds=9.9)
    assert cache.get(_entry().account_id)
    clock.advance(seconds=0.1)
    assert cache.get(_entry().account_id) is None
    clock.advance(seconds=-11)
    assert cache.get(_entry().account_id) is None


def test_an_older_entry_does_not_replace_a_newer_one(clock: TurnedClock) -> None:
    """A slow reader may have read before the account was disconnected. Of two entries of a version the later counts."""
    cache, newer = LocalCache(utcnow=clock), _entry(version=2, status=Status.DISCONNECTED)
    cache.put([newer])

    cache.put([_entry(version=1)])
    assert cache.get(newer.account_id) == newer

    cache.put([again := replace(newer, status=Status.PAUSED)])
    assert cache.get(newer.account_id) == again

    clock.advance(seconds=10)
    cache.put([_entry(version=1)])
    assert cache.get(newer.account_id) == _entry(version=1), "versions are lower in a database from a backup"
