"""The token cache while Redis cannot take writes: a read is a miss or an old entry, and the next write counts."""

from dataclasses import replace

from tests.integration.service.house import ANN, House
from worker.devkit.stack import Stack
from worker.domain.account import account_id
from worker.domain.cache_entry import CacheEntry
from worker.service.tokens.cache import TokenCache
from worker.vault import Vault


def _cache(house: House) -> TokenCache:
    """As another process has it."""
    return TokenCache(house.services.cache, Vault(house.settings.keys))


def _after(entry: CacheEntry) -> CacheEntry:
    """The same after one more refresh."""
    assert entry.token
    return replace(entry, version=entry.version + 1, token=replace(entry.token, version=entry.version + 1))


def test_a_failed_write_costs_one_read_of_postgres(house: House, stores: Stack) -> None:
    """The cache keeps the older token. When that will do no longer, the newer one is found and put into Redis."""
    house.sign_in(ANN)
    stale = house.cached()
    assert stale
    house.clock.advance(minutes=20)
    with house.in_flight(lambda: house.services.on_demand.refresh_now(account_id(ANN))) as refreshing:
        stores.valkey.stop()
    assert refreshing.result().version == 2
    stores.valkey.start()
    house.services.redis.flushall()
    _cache(house).publish([stale])
    assert house.services.tokens.get(ANN).version == 1

    house.clock.advance(minutes=37)

    with house.counted() as statements:
        assert house.services.tokens.get(ANN).version == 2
    assert len([each for each in statements if "mail_credentials" in each]) == 1
    assert house.services.tokens.get(ANN).version == 2
    assert house.asked() == 1


def test_that_redis_is_away_is_logged_once_and_that_it_is_back(house: House, stores: Stack) -> None:
    """A thousand readers would fill the disk with one and the same line."""
    cache = _cache(house)
    stores.valkey.stop()
    for _ in range(3):
        assert cache.read(account_id(ANN)) is None
    stores.valkey.start()
    for _ in range(3):
        cache.read(account_id(ANN))

    lines = [line["event"] for line in house.logs if line["event"].startswith("Cache ")]
    assert lines == ["Cache cannot be used", "Cache can be used again"]


def test_a_redis_that_is_full_is_read_all_the_same(house: House) -> None:
    """What it could not take is missing, and everything else is there to be read."""
    cache = _cache(house)
    house.sign_in(ANN)
    cached = house.cached()
    assert cached
    house.services.redis.config_set("maxmemory", "1")
    house.undo.callback(house.services.redis.config_set, "maxmemory", "0")

    assert not cache.publish([_after(cached)])

    assert cache.read(account_id(ANN)) == cached
    assert cache.read_many([account_id(ANN)]) == {account_id(ANN): cached}
