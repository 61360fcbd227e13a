"""What Redis could not be told while it was away, it is told before anything else when it is back."""

from collections.abc import Callable
from dataclasses import replace

from tests.constants import ANN, BOB
from tests.integration.installation import Installation
from worker.devkit.stack import Stack
from worker.domain.account import account_id
from worker.domain.token import CacheEntry
from worker.service.tokens.cache import TokenCache
from worker.vault import Vault


def _entries(installation: Installation) -> TokenCache:
    """As another process has them: it owes nothing."""
    return TokenCache(installation.services.cache, Vault(installation.settings.keys))


def _after(entry: CacheEntry) -> CacheEntry:
    """The same after one more refresh."""
    assert entry.token
    return entry.renewed(replace(entry.token, version=entry.version + 1), None)


def _missed(installation: Installation, stores: Stack, entries: TokenCache) -> CacheEntry:
    """An entry newer than what Redis has, that Redis could not take."""
    installation.sign_in(ANN)
    cached = installation.cached()
    assert cached
    newer = _after(cached)
    stores.valkey.stop()
    assert not entries.publish([newer])
    stores.valkey.start()
    return newer


def test_a_missed_write_is_repeated_by_the_next_read(installation: Installation, stores: Stack) -> None:
    """Of any account: Postgres may be lost next, and then what Redis has passes for the newest."""
    entries = _entries(installation)
    newer = _missed(installation, stores, entries)

    assert entries.read(account_id(BOB)) is None

    assert _entries(installation).read(account_id(ANN)) == newer


def test_a_missed_write_is_repeated_with_the_next_entry(installation: Installation, stores: Stack) -> None:
    """A worker only writes."""
    entries = _entries(installation)
    newer = _missed(installation, stores, entries)

    assert entries.publish([replace(newer, account_id=account_id(BOB), email=BOB)])

    assert _entries(installation).read(account_id(ANN)) == newer


def test_a_missed_write_does_not_replace_a_newer_entry(installation: Installation, stores: Stack) -> None:
    """Somebody else has refreshed the account meanwhile, and knew a way to Redis."""
    entries = _entries(installation)
    newer = _missed(installation, stores, entries)
    newest = _after(newer)
    assert _entries(installation).publish([newest])

    assert entries.read(account_id(ANN)) == newest


def test_an_outage_of_redis_is_logged_once_and_so_is_its_end(installation: Installation, stores: Stack) -> None:
    """A thousand readers would fill the disk with one and the same line."""
    entries = _entries(installation)
    stores.valkey.stop()
    for _ in range(3):
        assert entries.read(account_id(ANN)) is None
    stores.valkey.start()
    for _ in range(3):
        entries.read(account_id(ANN))

    told = [line["event"] for line in installation.logs if line["event"].startswith("Cache ")]
    assert told == ["Cache cannot be used", "Cache can be used again"]


def _fill(installation: Installation) -> Callable[[], object]:
    """From now on Redis refuses what needs memory, until what is returned is called."""
    installation.services.redis.config_set("maxmemory", "1")
    installation.cleanup.callback(installation.services.redis.config_set, "maxmemory", "0")
    return lambda: installation.services.redis.config_set("maxmemory", "0")


def test_a_redis_that_is_full_is_read_all_the_same(installation: Installation) -> None:
    """What it could not take is known here, and everything else is there to be read. Told once."""
    entries, ann, bob = _entries(installation), account_id(ANN), account_id(BOB)
    installation.sign_in(ANN, BOB)
    anns, bobs = installation.cached(), installation.cached(BOB)
    assert anns
    newer = _after(anns)
    empty = _fill(installation)
    assert not entries.publish([newer])

    assert (entries.read(bob), entries.read(ann)) == (bobs, newer)
    assert entries.read_many([ann, bob]) == {ann: newer, bob: bobs}
    assert _entries(installation).read(ann) == anns
    empty()
    assert entries.read(bob) == bobs

    assert _entries(installation).read(ann) == newer
    told = [line["event"] for line in installation.logs if line["event"].startswith("Cache ")]
    assert told == ["Cache cannot be used", "Cache can be used again"]


def test_a_full_redis_may_have_a_newer_entry(installation: Installation) -> None:
    """Another process has written it while there was room."""
    entries, ann = _entries(installation), account_id(ANN)
    installation.sign_in(ANN, BOB)
    cached, bobs = installation.cached(), installation.cached(BOB)
    assert cached
    assert bobs
    newest = _after(_after(cached))
    empty = _fill(installation)
    assert not entries.publish([_after(bobs), _after(cached)])
    empty()
    assert _entries(installation).publish([newest])
    _fill(installation)

    assert entries.read(ann) == newest
    assert entries.read_many([ann]) == {ann: newest}


def test_an_entry_that_a_full_redis_lost_is_still_known_here(installation: Installation) -> None:
    """An entry that expired there needs no memory to be gone."""
    entries, ann = _entries(installation), account_id(ANN)
    installation.sign_in(ANN)
    cached = installation.cached()
    assert cached
    _fill(installation)
    assert not entries.publish([_after(cached)])
    installation.services.redis.delete(f"token-worker:entry:{ann}")

    assert entries.read(ann) == _after(cached)
    assert entries.read_many([ann, account_id(BOB)]) == {ann: _after(cached)}


def test_the_latest_entry_of_a_version_is_written_to_redis(installation: Installation, stores: Stack) -> None:
    """A note of failure does not raise the version; the one before it must not win."""
    entries = _entries(installation)
    newer = _missed(installation, stores, entries)
    stores.valkey.stop()
    entries.publish([replace(newer, scopes=("said-later",))])
    stores.valkey.start()

    assert entries.read(account_id(ANN)) == replace(newer, scopes=("said-later",))
