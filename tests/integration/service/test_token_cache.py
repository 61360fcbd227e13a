"""The token cache while Redis cannot take writes: a read is a miss or an old entry, and the next write succeeds."""

from dataclasses import replace

from tests.constants import ANN
from tests.integration import counting
from tests.integration.installation import Installation
from worker.devkit.stack import Stack
from worker.domain.account import account_id
from worker.domain.cache_entry import CacheEntry
from worker.service.tokens.cache import TokenCache
from worker.vault import Vault


def _cache(installation: Installation) -> TokenCache:
    """The token cache of another process."""
    return TokenCache(installation.services.cache, Vault(installation.settings.keys))


def _after(entry: CacheEntry) -> CacheEntry:
    """The same entry after one more refresh."""
    assert entry.token
    return replace(entry, version=entry.version + 1, token=replace(entry.token, version=entry.version + 1))


def test_a_failed_write_costs_one_read_of_postgres(installation: Installation, stores: Stack) -> None:
    """The cache keeps the older token.

    Once that is too old, the newer one is read from Postgres and written to Redis.
    """
    installation.sign_in(ANN)
    stale = installation.cached()
    assert stale
    installation.clock.advance(minutes=20)
    with installation.in_flight(lambda: installation.services.on_demand.refresh_now(account_id(ANN))) as refreshing:
        stores.valkey.stop()
    assert refreshing.result().version == 2
    stores.valkey.start()
    installation.services.redis.flushall()
    _cache(installation).publish([stale])
    assert installation.services.tokens.get(ANN).version == 1

    installation.clock.advance(minutes=37)

    with counting.statements() as statements:
        assert installation.services.tokens.get(ANN).version == 2
    assert len([each for each in statements if "mail_credentials" in each]) == 1
    assert installation.services.tokens.get(ANN).version == 2
    assert installation.requests == 1


def test_an_outage_of_redis_is_logged_once_and_so_is_its_end(installation: Installation, stores: Stack) -> None:
    """Thousands of readers must not fill the disk with one log line."""
    cache = _cache(installation)
    stores.valkey.stop()
    for _ in range(3):
        assert cache.read(account_id(ANN)) is None
    stores.valkey.start()
    for _ in range(3):
        cache.read(account_id(ANN))

    lines = [line["event"] for line in installation.logs if line["event"].startswith("Cache ")]
    assert lines == ["Cache cannot be used", "Cache can be used again"]


def test_a_full_redis_can_still_be_read(installation: Installation) -> None:
    """The entry that could not be written is missing, and all others can be read."""
    cache = _cache(installation)
    installation.sign_in(ANN)
    cached = installation.cached()
    assert cached
    installation.services.redis.config_set("maxmemory", "1")
    installation.cleanup.callback(installation.services.redis.config_set, "maxmemory", "0")

    assert not cache.publish([_after(cached)])

    assert cache.read(account_id(ANN)) == cached
    assert cache.read_many([account_id(ANN)]) == {account_id(ANN): cached}
