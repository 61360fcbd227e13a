"""What Redis could not be told while it was away, it is told before anything else when it is back."""

from dataclasses import replace

from tests.integration.service.house import ANN, BOB, House
from worker.devkit.stack import Stack
from worker.domain.credential import CacheEntry, account_id
from worker.service.entries import Entries
from worker.vault import Vault


def _entries(house: House) -> Entries:
    """As another process has them: it owes nothing."""
    return Entries(house.services.cache, Vault(house.settings.keys))


def _after(entry: CacheEntry) -> CacheEntry:
    """The same after one more refresh."""
    assert entry.token
    return entry.renewed(replace(entry.token, version=entry.version + 1), None)


def _missed(house: House, stores: Stack, entries: Entries) -> CacheEntry:
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


def test_the_latest_word_on_a_version_is_what_redis_is_told(house: House, stores: Stack) -> None:
    """A note of failure does not raise the version; the one before it must not win."""
    entries = _entries(house)
    newer = _missed(house, stores, entries)
    stores.valkey.stop()
    entries.publish([replace(newer, scopes=("said-later",))])
    stores.valkey.start()

    assert entries.read(account_id(ANN)) == replace(newer, scopes=("said-later",))
