"""The cache of a consumer: few, for seconds, and never older than what was kept before."""

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


def test_it_holds_no_more_than_it_may_and_gives_up_the_least_used(clock: TurnedClock) -> None:
    """A process that serves a million mailboxes remembers the thousand of the moment."""
    cache = LocalCache(utcnow=clock)
    cache.put(_entry(number) for number in range(1000))
    assert cache.get(_entry(0).account_id)

    cache.put([_entry(1000)])

    assert cache.get(_entry(0).account_id) == _entry(0)
    assert cache.get(_entry(1).account_id) is None
    assert len(cache._entries) == 1000


def test_it_forgets_within_seconds(clock: TurnedClock) -> None:
    """And knows nothing if the clock is set back behind what it knows."""
    cache = LocalCache(utcnow=clock)
    cache.put([_entry()])

    clock.advance(seconds=9.9)
    assert cache.get(_entry().account_id)
    clock.advance(seconds=0.1)
    assert cache.get(_entry().account_id) is None
    clock.advance(seconds=-11)
    assert cache.get(_entry().account_id) is None


def test_what_is_older_does_not_replace_what_is_newer(clock: TurnedClock) -> None:
    """A slow reader comes back with what it read before somebody disconnected; of one version the last word counts."""
    cache, newer = LocalCache(utcnow=clock), _entry(version=2, status=Status.DISCONNECTED)
    cache.put([newer])

    cache.put([_entry(version=1)])
    assert cache.get(newer.account_id) == newer

    cache.put([again := replace(newer, status=Status.PAUSED)])
    assert cache.get(newer.account_id) == again

    clock.advance(seconds=10)
    cache.put([_entry(version=1)])
    assert cache.get(newer.account_id) == _entry(version=1), "a database from a backup counts anew"
