"""What Redis could not be told while it was away, it is told before anything else when it is back."""

from collections.abc import Callable
from dataclasses import replace

from tests.integration.service.house import ANN, BOB, House
from worker.devkit.stack import Stack
from worker.domain.account import account_id
from worker.domain.token import CacheEntry
from worker.service.tokens.cache import TokenCache
from worker.vault import Vault


def _entries(house: House) -> TokenCache:
    """As another process has them: it owes nothing."""
    return TokenCache(house.services.cache, Vault(house.settings.keys))


def _after(entry: CacheEntry) -> CacheEntry:
    """The same after one more refresh."""
    assert entry.token
    return entry.renewed(replace(entry.token, version=entry.version + 1), None)


def _missed(house: House, stores: Stack, entries: TokenCache) -> CacheEntry:
    """An entry newer than what Redis has, that Redis could not take."""
    house.sign_in(ANN)
    cached = house.cached()
    assert cached
    newer = _after(cached)
    stores.valkey.stop()
    assert not entries.publish([newer])
    stores.valkey.start()
    return newer


def test_what_was_missed_is_written_by_the_next_read(house: House, stores: Stack) -> None:
    """Of any account: Postgres may be lost next, and then what Redis has passes for the newest."""
    entries = _entries(house)
    newer = _missed(house, stores, entries)

    assert entries.read(account_id(BOB)) is None

    assert _entries(house).read(account_id(ANN)) == newer


def test_what_was_missed_is_written_with_the_next_entry(house: House, stores: Stack) -> None:
    """A worker only writes."""
    entries = _entries(house)
    newer = _missed(house, stores, entries)

    assert entries.publish([replace(newer, account_id=account_id(BOB), email=BOB)])

    assert _entries(house).read(account_id(ANN)) == newer


def test_what_was_missed_does_not_replace_what_has_come_since(house: House, stores: Stack) -> None:
    """Somebody else has refreshed the account meanwhile, and knew a way to Redis."""
    entries = _entries(house)
    newer = _missed(house, stores, entries)
    newest = _after(newer)
    assert _entries(house).publish([newest])

    assert entries.read(account_id(ANN)) == newest


def test_that_redis_is_away_is_told_once_and_that_it_is_back(house: House, stores: Stack) -> None:
    """A thousand readers would fill the disk with one and the same line."""
    entries = _entries(house)
    stores.valkey.stop()
    for _ in range(3):
        assert entries.read(account_id(ANN)) is None
    stores.valkey.start()
    for _ in range(3):
        entries.read(account_id(ANN))

    told = [line["event"] for line in house.logs if line["event"].startswith("Cache ")]
    assert told == ["Cache cannot be used", "Cache can be used again"]


def _fill(house: House) -> Callable[[], object]:
    """From now on Redis refuses what needs memory, until what is returned is called."""
    house.services.redis.config_set("maxmemory", "1")
    house.undo.callback(house.services.redis.config_set, "maxmemory", "0")
    return lambda: house.services.redis.config_set("maxmemory", "0")


def test_a_redis_that_is_full_is_read_all_the_same(house: House) -> None:
    """What it could not take is known here, and everything else is there to be read. Told once."""
    entries, ann, bob = _entries(house), account_id(ANN), account_id(BOB)
    house.sign_in(ANN, BOB)
    anns, bobs = house.cached(), house.cached(BOB)
    assert anns
    newer = _after(anns)
    empty = _fill(house)
    assert not entries.publish([newer])

    assert (entries.read(bob), entries.read(ann)) == (bobs, newer)
    assert entries.read_many([ann, bob]) == {ann: newer, bob: bobs}
    assert _entries(house).read(ann) == anns
    empty()
    assert entries.read(bob) == bobs

    assert _entries(house).read(ann) == newer
    told = [line["event"] for line in house.logs if line["event"].startswith("Cache ")]
    assert told == ["Cache cannot be used", "Cache can be used again"]


def test_a_redis_that_is_full_may_have_what_is_newer(house: House) -> None:
    """Another process has written it while there was room."""
    entries, ann = _entries(house), account_id(ANN)
    house.sign_in(ANN, BOB)
    cached, bobs = house.cached(), house.cached(BOB)
    assert cached
    assert bobs
    newest = _after(_after(cached))
    empty = _fill(house)
    assert not entries.publish([_after(bobs), _after(cached)])
    empty()
    assert _entries(house).publish([newest])
    _fill(house)

    assert entries.read(ann) == newest
    assert entries.read_many([ann]) == {ann: newest}


def test_what_redis_lost_while_it_was_full_is_known_here(house: House) -> None:
    """An entry that expired there needs no memory to be gone."""
    entries, ann = _entries(house), account_id(ANN)
    house.sign_in(ANN)
    cached = house.cached()
    assert cached
    _fill(house)
    assert not entries.publish([_after(cached)])
    house.services.redis.delete(f"token-worker:entry:{ann}")

    assert entries.read(ann) == _after(cached)
    assert entries.read_many([ann, account_id(BOB)]) == {ann: _after(cached)}


def test_the_latest_word_on_a_version_is_what_redis_is_told(house: House, stores: Stack) -> None:
    """A note of failure does not raise the version; the one before it must not win."""
    entries = _entries(house)
    newer = _missed(house, stores, entries)
    stores.valkey.stop()
    entries.publish([replace(newer, scopes=("said-later",))])
    stores.valkey.start()

    assert entries.read(account_id(ANN)) == replace(newer, scopes=("said-later",))
