"""The cache in Redis: a copy that never goes back in time, and that may be gone at any moment."""

import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from redis import Redis
from redis.connection import Connection

from tests.constants import ANN, BOB
from worker.cache import Cache, OutboxStore, SealedEntry, connect
from worker.domain.account import account_id
from worker.domain.errors import Unavailable
from worker.domain.token import Sealed

ANN_ID, BOB_ID = account_id(ANN), account_id(BOB)
KEY = f"token-worker:entry:{ANN_ID}"
VALUE = Sealed(b"\x01\x02k1 a sealed entry \x00\xff")
OUTBOX = "token-worker:outbox"


@pytest.fixture(name="redis")
def _redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture(name="cache")
def _cache(redis: Redis) -> Cache:
    return Cache(redis, ttl=timedelta(hours=24))


def entry(version: int, sealed: Sealed = VALUE) -> SealedEntry:
    return version, sealed


def test_an_entry_comes_back_as_it_was_put(cache: Cache) -> None:
    """Byte for byte: it is ciphertext."""
    everything = Sealed(bytes(range(256)))

    cache.put({ANN_ID: entry(7, everything), BOB_ID: entry(2)})

    assert cache.get(ANN_ID) == entry(7, everything)
    assert cache.get(BOB_ID) == entry(2)


def test_an_unknown_account_is_a_miss(cache: Cache) -> None:
    """Then Postgres is asked."""
    assert cache.get(ANN_ID) is None


@pytest.mark.parametrize(
    ("stored", "written"), [(2, 1), (10, 9), (100, 99), (2**53 + 1, 2**53), (10**19, 10**19 - 1)], ids=str
)
def test_an_older_entry_never_replaces_a_newer(cache: Cache, stored: int, written: int) -> None:
    """A slow worker's write may arrive after that of the next; numbers are compared as numbers, however large."""
    cache.put({ANN_ID: entry(stored)})

    cache.put({ANN_ID: entry(written, Sealed(b"late"))})

    assert cache.get(ANN_ID) == entry(stored)


@pytest.mark.parametrize(("stored", "written"), [(1, 2), (9, 10), (99, 100), (3, 3), (2**53, 2**53 + 1)], ids=str)
def test_a_newer_entry_replaces_an_older_and_an_equal_one(cache: Cache, stored: int, written: int) -> None:
    """Equal versions hold the same tokens; the one from Postgres may repair the other."""
    cache.put({ANN_ID: entry(stored)})

    cache.put({ANN_ID: entry(written, Sealed(b"new"))})

    assert cache.get(ANN_ID) == entry(written, Sealed(b"new"))


def test_one_late_entry_does_not_hold_up_the_others(cache: Cache) -> None:
    """They are written together, and guarded each for itself."""
    cache.put({ANN_ID: entry(5)})

    cache.put({ANN_ID: entry(4, Sealed(b"late")), BOB_ID: entry(1)})

    assert cache.get(ANN_ID) == entry(5)
    assert cache.get(BOB_ID) == entry(1)


def test_an_entry_expires_and_every_write_begins_its_time_anew(redis: Redis) -> None:
    """In milliseconds, because a test or a demo may want less than a second."""
    Cache(redis, ttl=timedelta(milliseconds=60_500)).put({ANN_ID: entry(1)})
    assert 0 < redis.pttl(KEY) <= 60_500

    Cache(redis, ttl=timedelta(hours=24)).put({ANN_ID: entry(2)})
    assert 86_000_000 < redis.pttl(KEY) <= 86_400_000


GARBAGE = [
    b"",
    b"hello",
    b'{"access_token": "of an older program"}',
    b"1 ",
    b"1 00000000000000000003",
    b"1 0000000000000000000x sealed",
    b"1 -0000000000000000003 sealed",
    b"\xff" * 64,
]


@pytest.mark.parametrize("value", GARBAGE, ids=lambda value: repr(value[:16]))
def test_a_value_that_is_not_ours_is_a_miss(cache: Cache, redis: Redis, value: bytes) -> None:
    """Somebody else's program, another version of this one, half a write: Postgres knows better."""
    redis.set(KEY, value)

    assert cache.get(ANN_ID) is None


@pytest.mark.parametrize("value", GARBAGE, ids=lambda value: repr(value[:16]))
def test_a_value_that_is_not_ours_is_replaced(cache: Cache, redis: Redis, value: bytes) -> None:
    """Or the account would miss for ever, and each of its reads go to Postgres."""
    redis.set(KEY, value)

    cache.put({ANN_ID: entry(3)})

    assert cache.get(ANN_ID) == entry(3)


def test_many_entries_take_one_round_trip(redis_url: str) -> None:
    """A batch publishes a hundred at a time; the way to Redis is what it waits for."""
    with Redis.from_url(redis_url, connection_class=CountedConnection) as redis:
        cache = Cache(redis, ttl=timedelta(hours=24))
        cache.put({ANN_ID: entry(1)})
        CountedConnection.sent = 0

        cache.put({account_id(f"user{number}@contoso.com"): entry(2) for number in range(100)})

        assert CountedConnection.sent == 1
        assert redis.dbsize() == 101


class CountedConnection(Connection):
    """Counts how often something is sent; every time an answer is waited for."""

    sent = 0

    def send_packed_command(self, command: object, check_health: bool = True) -> None:
        CountedConnection.sent += 1
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]  # redis has no hints here


def test_a_restarted_redis_is_taught_the_guard_again(cache: Cache, redis: Redis) -> None:
    """It forgets its scripts, and no process of ours may need a restart for that."""
    cache.put({ANN_ID: entry(2)})
    redis.script_flush()

    cache.put({ANN_ID: entry(1, Sealed(b"late"))})

    assert cache.get(ANN_ID) == entry(2)


OPERATIONS: dict[str, Callable[[Redis], object]] = {
    "get": lambda redis: Cache(redis, ttl=timedelta(hours=1)).get(ANN_ID),
    "put": lambda redis: Cache(redis, ttl=timedelta(hours=1)).put({ANN_ID: entry(1)}),
    "ping": lambda redis: Cache(redis, ttl=timedelta(hours=1)).ping(),
    "outbox put": lambda redis: OutboxStore(redis).put({ANN_ID: VALUE}),
    "outbox pages": lambda redis: list(OutboxStore(redis).pages()),
    "outbox discard": lambda redis: OutboxStore(redis).discard({ANN_ID: VALUE}),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_without_redis_every_method_says_so_and_shows_nothing(operation: str) -> None:
    """Callers handle one error; its text is logged, and holds neither the password nor a value."""
    with connect("redis://:hunter2@127.0.0.1:1/0") as nowhere, pytest.raises(Unavailable) as refusal:
        OPERATIONS[operation](nowhere)

    check_silence(refusal.value, "hunter2", "sealed entry")


@pytest.mark.parametrize("operation", ["get", "put", "outbox put", "outbox pages", "outbox discard"])
def test_a_redis_that_refuses_is_unavailable_and_shows_nothing(redis: Redis, operation: str) -> None:
    """A key of another type, a script that fails: the server's words repeat commands, so they are not passed on."""
    redis.rpush(KEY, "a list")
    redis.rpush(OUTBOX, "a list")

    with pytest.raises(Unavailable) as refusal:
        OPERATIONS[operation](redis)

    check_silence(refusal.value, str(ANN_ID), "sealed entry", "WRONGTYPE")


@pytest.mark.parametrize("operation", ["put", "outbox put"])
def test_a_full_redis_is_unavailable(redis: Redis, operation: str) -> None:
    """With noeviction it refuses writes: tokens that were not kept must not be taken for kept."""
    redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(Unavailable):
            OPERATIONS[operation](redis)
    finally:
        redis.config_set("maxmemory", "0")


def test_a_wrong_password_is_not_shown(redis_url: str) -> None:
    """The commonest mistake of a first start."""
    password = redis_url.split(":")[2].partition("@")[0]
    with connect(redis_url.replace(password, "hunter2")) as stranger, pytest.raises(Unavailable) as refusal:
        OPERATIONS["ping"](stranger)

    check_silence(refusal.value, "hunter2", password)


def check_silence(error: BaseException, *words: str) -> None:
    """Neither the message nor what a logged traceback would show."""
    told = "".join(traceback.format_exception(error))
    assert [word for word in words if word in told.replace(__file__, "")] == []
