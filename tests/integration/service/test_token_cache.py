"""The token cache while Redis cannot take writes: a read is a miss or an old entry, and the next write counts."""

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
    """As another process has it."""
    return TokenCache(installation.services.cache, Vault(installation.settings.keys))


def _after(entry: CacheEntry) -> CacheEntry:
    """The same after one more refresh."""
    assert entry.token
    return replace(entry, version=entry.version + 1, token=replace(entry.token, version=entry.version + 1))


def test_a_failed_write_costs_one_read_of_postgres(installation: Installation, stores: Stack) -> None:
    """The cache keeps the older token. When that will do no longer, the newer one is found and put into Redis."""
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


def test_that_redis_is_away_is_logged_once_and_that_it_is_back(installation: Installation, stores: Stack) -> None:
    """A thousand readers would fill the disk with one and the same line."""
    cache = _cache(installation)
    stores.valkey.stop()
    for _ in range(3):
        assert cache.read(account_id(ANN)) is None
    stores.valkey.start()
    for _ in range(3):
        cache.read(account_id(ANN))

    lines = [line["event"] for line in installation.logs if line["event"].startswith("Cache ")]
    assert lines == ["Cache cannot be used", "Cache can be used again"]


def test_a_redis_that_is_full_is_read_all_the_same(installation: Installation) -> None:
    """What it could not take is missing, and everything else is there to be read."""
    cache = _cache(installation)
    installation.sign_in(ANN)
    cached = installation.cached()
    assert cached
    installation.services.redis.config_set("maxmemory", "1")
    installation.cleanup.callback(installation.services.redis.config_set, "maxmemory", "0")

    assert not cache.publish([_after(cached)])

    assert cache.read(account_id(ANN)) == cached
    assert cache.read_many([account_id(ANN)]) == {account_id(ANN): cached}
