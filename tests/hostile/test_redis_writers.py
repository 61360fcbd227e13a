"""A writer to Redis may slow things down. A minute after the last write each account is refreshed and read again.

The values stay: they have no time limit.
"""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from time import monotonic

import pytest

from tests.constants import ANN, BOB, CAT, HOUR, MINUTE
from tests.integration.installation import Installation
from worker.cache import Cache, OutboxStore, RateLimiter, RedisClient, RequestDedup, TenantThrottle, connect
from worker.client import TokenClient
from worker.devkit.emulator import oauth_error
from worker.domain.account import account_id
from worker.domain.cache_entry import encode
from worker.domain.token import Secret, TokenRequirement
from worker.settings import ReaderSettings
from worker.vault import Purpose, Vault, format_access_keys

ENTRY = f"token-worker:entry:{account_id(ANN)}"
THROTTLE = "token-worker:pause:default:contoso.com"
OUTBOX = "token-worker:outbox"
HUGE = b"x" * 5_000_000


@pytest.fixture(name="redis")
def _redis(redis_url: str) -> Iterator[RedisClient]:
    with connect(redis_url) as client:
        yield client


# Throttled tenants


@pytest.mark.parametrize("seconds", [61, 600, 86_400, 10**6, 10**12])
def test_no_throttle_in_redis_is_believed_for_more_than_a_minute(
    installation: Installation, redis: RedisClient, seconds: float
) -> None:
    installation.sign_in(ANN, BOB, due=True)
    redis.set(THROTTLE, repr(installation.clock().timestamp() + seconds))

    assert installation.refresh_due() == {"leased": 2, "refreshed": 2}


def test_a_forged_throttle_ends_a_minute_after_it_was_written(installation: Installation, redis: RedisClient) -> None:
    installation.sign_in(ANN, due=True)
    redis.set(THROTTLE, repr(installation.clock().timestamp() + 60))
    assert installation.refresh_due() == {"leased": 1, "returned": 1}

    installation.clock.advance(seconds=61)

    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}


@pytest.mark.parametrize("put", [lambda redis: redis.rpush(THROTTLE, "x"), lambda redis: redis.set(THROTTLE, HUGE)])
def test_a_throttle_of_another_form_is_absent(
    installation: Installation, redis: RedisClient, put: Callable[[RedisClient], object]
) -> None:
    installation.sign_in(ANN, due=True)
    put(redis)

    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}


def test_a_longer_retry_after_stays_in_the_memory_of_the_process(installation: Installation) -> None:
    """No writer to Redis can forge or delete it. It is shared again, a minute at a time."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("90055", retry_after=1800))
    installation.refresh_due()
    installation.emulator.clear_faults()
    other = installation.another_process()

    for _ in range(20):
        installation.services.redis.flushall()
        installation.sign_in("new@contoso.com", due=True)
        assert installation.refresh_due() == {"leased": 1, "returned": 1}
        with connect(installation.settings.redis_url.get_secret_value()) as redis:
            shared = TenantThrottle(redis, utcnow=installation.clock).waits("default", ["contoso.com"])
        assert shared == {"contoso.com": MINUTE}
        installation.clock.advance(minutes=1)
    due_at = installation.account("new@contoso.com").due_at
    assert due_at
    assert due_at - installation.clock() > 8 * MINUTE

    installation.clock.advance(minutes=15)
    assert other.refresher.refresh_due() == {"leased": 2, "refreshed": 2}


# Cache entries


def garbage(version: int) -> Callable[[Installation], object]:
    return lambda installation: installation.services.redis.set(ENTRY, b"1 %020d " % version + b"x" * 100)


def forged(ahead: int) -> Callable[[Installation], object]:
    """A holder of access keys seals an entry with a version of the future, and a token that is none."""

    def forge(installation: Installation) -> object:
        entry = installation.cached()
        assert entry
        assert entry.token
        entry.version += ahead
        changed = json.loads(encode(entry).reveal()) | {"access_token": "forged", "expires_at": 4102444800.0}
        secret = type(entry.token.secret)(json.dumps(changed))
        sealed = Vault(installation.settings.keys).seal(secret, account_id(ANN), Purpose.CACHE_ENTRY)
        return installation.services.redis.set(ENTRY, b"1 %020d " % entry.version + sealed)

    return forge


def deep(installation: Installation) -> object:
    """A holder of access keys seals more brackets than Python's parser takes."""
    sealed = Vault(installation.settings.keys).seal(Secret("[" * 5000), account_id(ANN), Purpose.CACHE_ENTRY)
    return installation.services.redis.set(ENTRY, b"1 %020d " % 7 + sealed)


ENTRIES: dict[str, Callable[[Installation], object]] = {
    "the next version": garbage(2),
    "a high version": garbage(10**6),
    "the highest version": garbage(10**20 - 1),
    "a sealed entry ahead by a million": forged(10**6),
    "a deep sealed entry": deep,
    "another type": lambda installation: installation.services.redis.rpush(ENTRY, "x"),
    "a huge value": lambda installation: installation.services.redis.set(ENTRY, b"1 99999999999999999999 " + HUGE),
}


def replace_entry(installation: Installation, put: Callable[[Installation], object]) -> None:
    if put is ENTRIES["another type"]:
        installation.services.redis.delete(ENTRY)
    put(installation)


@pytest.mark.parametrize("put", ENTRIES.values(), ids=ENTRIES)
def test_a_worker_replaces_an_entry_that_no_worker_wrote(
    installation: Installation, put: Callable[[Installation], object]
) -> None:
    """Also in a batch, where the others' entries are written by the same command."""
    installation.sign_in(ANN, BOB, CAT)
    installation.clock.advance(hours=1)
    replace_entry(installation, put)

    assert installation.refresh_due() == {"leased": 3, "refreshed": 3}

    for email in (ANN, BOB, CAT):
        entry = installation.cached(email)
        assert entry
        assert (entry.version, entry.token and entry.token.version) == (2, 2)
    assert installation.services.redis.pttl(ENTRY) > 0


@pytest.mark.parametrize("put", [each for name, each in ENTRIES.items() if "ahead" not in name])
def test_a_reader_replaces_an_entry_that_does_not_open(
    installation: Installation, put: Callable[[Installation], object]
) -> None:
    """Otherwise each read would go to Postgres, and a consumer without Postgres would have none at all."""
    installation.sign_in(ANN)
    replace_entry(installation, put)

    installation.services.tokens.serve(account_id(ANN), TokenRequirement())

    with reader(installation) as client:
        assert client.get(ANN).version == 1


def reader(installation: Installation) -> TokenClient:
    """A consumer with Redis and access keys alone."""
    settings = installation.settings
    values = {"redis_url": settings.redis_url, "access_keys": format_access_keys(settings.keys)}
    return TokenClient(ReaderSettings.model_validate(values), utcnow=installation.clock)


def test_a_huge_entry_is_not_read_to_its_end(installation: Installation, redis: RedisClient) -> None:
    """A consumer has a limit to its memory."""
    installation.sign_in(ANN, BOB)
    redis.set(ENTRY, b"1 00000000000000000001 " + HUGE)
    before = redis.info("stats")["total_net_output_bytes"]
    cache = Cache(redis, ttl=HOUR)

    assert cache.get(account_id(ANN)) is None
    assert set(cache.get_many([account_id(ANN), account_id(BOB)])) == {account_id(BOB)}

    assert redis.info("stats")["total_net_output_bytes"] - before < 1_000_000


def test_an_older_entry_does_not_replace_a_newer_one(installation: Installation) -> None:
    """The counter-proof: a late writer's entry is older than the row."""
    installation.sign_in(ANN)
    late = installation.cached()
    assert late
    installation.services.on_demand.refresh_now(account_id(ANN))

    installation.services.tokens._cache.publish([late])

    entry = installation.cached()
    assert entry
    assert entry.version == 2


# Requests on demand


@pytest.mark.parametrize("limit", [None, 3600])
@pytest.mark.parametrize("kind", ["string", "list"])
def test_a_forged_record_keeps_no_request_back(redis: RedisClient, limit: int | None, kind: str) -> None:
    account, request, window = account_id(ANN), "a request", timedelta(seconds=20)
    key = redis.names.request(account, request)
    if kind == "string":
        redis.set(key, "x")
    else:
        redis.rpush(key, "x")
    if limit:
        redis.expire(key, limit)
    requests = RequestDedup(redis)

    assert requests.is_new(account, request, window)
    assert not requests.is_new(account, request, window)


# Rates

RATES: dict[str, Callable[[RedisClient], object]] = {
    "a high number": lambda redis: redis.set("token-worker:rate:default", "1 999999999 999999999"),
    "the limit in the far future": lambda redis: redis.set("token-worker:rate:default", f"{10**15} 20 20"),
    "the limit in the past": lambda redis: redis.set("token-worker:rate:default", "1000 20 20"),
    "no number": lambda redis: redis.set("token-worker:rate:default", "inf nan x"),
    "a huge value": lambda redis: redis.set("token-worker:rate:default", b"9" * 5_000_000),
    "another type": lambda redis: redis.rpush("token-worker:rate:default", "x"),
}


@pytest.mark.parametrize("put", RATES.values(), ids=RATES)
def test_a_forged_rate_counts_as_none(redis: RedisClient, put: Callable[[RedisClient], object]) -> None:
    put(redis)
    limiter = RateLimiter(redis, per_second=20)

    began = monotonic()
    assert limiter.acquire("default", 20) == 20
    assert monotonic() - began < 5


def test_a_rate_forged_this_second_counts_for_two(redis: RedisClient) -> None:
    """A value that a worker could have written is believed for the seconds that it is about."""
    seconds, _ = redis.time()
    redis.set("token-worker:rate:default", f"{seconds * 1000} 20 20")

    assert RateLimiter(redis, per_second=20).acquire("default", 20) > 0


# The outbox


def test_an_outbox_of_another_type_is_replaced(installation: Installation, redis: RedisClient) -> None:
    installation.sign_in(ANN, due=True)
    redis.set(OUTBOX, "x")
    assert installation.services.outbox.size() == 0
    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}
    assert redis.exists(OUTBOX) == 0

    redis.rpush(OUTBOX, "x")
    OutboxStore(redis).put({account_id(ANN): b"value"})
    assert installation.services.outbox.size() == 1
    redis.delete(OUTBOX)
    redis.rpush(OUTBOX, "x")
    assert installation.services.key_rotation.rotate(progress=lambda _: None).waiting == 0


def test_a_huge_value_in_the_outbox_is_not_read_to_its_end(installation: Installation, redis: RedisClient) -> None:
    """Each sweep reads the outbox, and a worker has a limit to its memory."""
    installation.sign_in(ANN, due=True)
    redis.hset(OUTBOX, mapping={str(account_id(ANN)): HUGE, str(account_id(BOB)): HUGE, "x" * 1000: HUGE})
    before = redis.info("stats")["total_net_output_bytes"]

    assert installation.services.refresher.batches_due(limit=1) == ["default"]
    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}

    assert redis.info("stats")["total_net_output_bytes"] - before < 2_000_000
    assert redis.exists(OUTBOX) == 0
    kept = redis.hgetall("token-worker:outbox:unreadable")
    assert {len(value) for value in kept.values()} == {65_537}


def test_fields_that_are_no_accounts_are_deleted(installation: Installation, redis: RedisClient) -> None:
    """Otherwise each sweep would read them again."""
    installation.sign_in(ANN, due=True)
    redis.hset(OUTBOX, mapping={f"junk-{number}": b"x" for number in range(5000)})
    redis.hset(OUTBOX, mapping={"x" * 36: b"x", str(account_id(ANN)).upper(): b"x"})

    installation.refresh_due()

    assert redis.exists(OUTBOX) == 0
