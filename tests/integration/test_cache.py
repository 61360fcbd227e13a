"""The cache in Redis: a copy that never becomes older, and may be lost at any moment."""

import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from redis.connection import Connection, ConnectionPool

from tests.constants import ANN, BOB
from worker.cache import Cache, Keys, OutboxStore, RedisClient, SealedEntry, connect
from worker.domain.account import account_id
from worker.domain.errors import Unavailable
from worker.domain.token import Sealed

ANN_ID, BOB_ID = account_id(ANN), account_id(BOB)
KEY = f"token-worker:entry:{ANN_ID}"
VALUE = Sealed(b"\x01\x02k1 a sealed entry \x00\xff")
OUTBOX = "token-worker:outbox"


@pytest.fixture(name="redis")
def _redis(redis_url: str) -> Iterator[RedisClient]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture(name="cache")
def _cache(redis: RedisClient) -> Cache:
    return Cache(redis, ttl=timedelta(hours=24))


def entry(version: int, sealed: Sealed = VALUE) -> SealedEntry:
    return version, sealed


def test_an_entry_is_read_as_it_was_written(cache: Cache) -> None:
    """Byte for byte, because it is ciphertext."""
    everything = Sealed(bytes(range(256)))

    cache.put({ANN_ID: entry(7, everything), BOB_ID: entry(2)})

    assert cache.get(ANN_ID) == entry(7, everything)
    assert cache.get(BOB_ID) == entry(2)


def test_an_unknown_account_is_a_miss(cache: Cache) -> None:
    """The caller then reads Postgres."""
    assert cache.get(ANN_ID) is None


@pytest.mark.parametrize(
    ("stored", "written"), [(2, 1), (10, 9), (100, 99), (2**53 + 1, 2**53), (10**19, 10**19 - 1)], ids=str
)
def test_an_older_entry_never_replaces_a_newer(cache: Cache, stored: int, written: int) -> None:
    """A slow worker's write may arrive after that of the next worker. Versions are compared as numbers of any size."""
    cache.put({ANN_ID: entry(stored)})

    cache.put({ANN_ID: entry(written, Sealed(b"late"))})

    assert cache.get(ANN_ID) == entry(stored)


@pytest.mark.parametrize(("stored", "written"), [(1, 2), (9, 10), (99, 100), (3, 3), (2**53, 2**53 + 1)], ids=str)
def test_a_newer_entry_replaces_an_older_and_an_equal_one(cache: Cache, stored: int, written: int) -> None:
    """Equal versions hold the same tokens, so an entry from Postgres may repair the other."""
    cache.put({ANN_ID: entry(stored)})

    cache.put({ANN_ID: entry(written, Sealed(b"new"))})

    assert cache.get(ANN_ID) == entry(written, Sealed(b"new"))


def test_one_late_entry_does_not_stop_the_others(cache: Cache) -> None:
    """They are written together, and the version of each is checked."""
    cache.put({ANN_ID: entry(5)})

    cache.put({ANN_ID: entry(4, Sealed(b"late")), BOB_ID: entry(1)})

    assert cache.get(ANN_ID) == entry(5)
    assert cache.get(BOB_ID) == entry(1)


def test_an_entry_expires_and_every_write_restarts_its_time(redis: RedisClient) -> None:
    """In milliseconds, because a test or a demo may need less than a second."""
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
def test_a_value_that_is_not_ours_is_a_miss(cache: Cache, redis: RedisClient, value: bytes) -> None:
    """Values of another program, of another version of this one, or of half a write: Postgres has the truth."""
    redis.set(KEY, value)

    assert cache.get(ANN_ID) is None


@pytest.mark.parametrize("value", GARBAGE, ids=lambda value: repr(value[:16]))
def test_a_value_that_is_not_ours_is_replaced(cache: Cache, redis: RedisClient, value: bytes) -> None:
    """Otherwise the account would always miss, and each of its reads would go to Postgres."""
    redis.set(KEY, value)

    cache.put({ANN_ID: entry(3)})

    assert cache.get(ANN_ID) == entry(3)


def test_many_entries_take_one_round_trip(redis_url: str) -> None:
    """A batch writes a hundred entries at a time, and its time is mostly that of round trips to Redis."""
    with RedisClient(ConnectionPool.from_url(redis_url, connection_class=CountedConnection), Keys()) as redis:
        cache = Cache(redis, ttl=timedelta(hours=24))
        cache.put({ANN_ID: entry(1)})
        CountedConnection.sent = 0

        cache.put({account_id(f"user{number}@contoso.com"): entry(2) for number in range(100)})

        assert CountedConnection.sent == 1
        assert redis.dbsize() == 101


class CountedConnection(Connection):
    """Counts the packets that are sent, each of which costs a round trip."""

    sent = 0

    def send_packed_command(self, command: object, check_health: bool = True) -> None:
        CountedConnection.sent += 1
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]  # redis has no annotations here


def test_the_script_is_loaded_again_after_a_restart_of_redis(cache: Cache, redis: RedisClient) -> None:
    """It has lost its scripts, and no process may need a restart for that."""
    cache.put({ANN_ID: entry(2)})
    redis.script_flush()

    cache.put({ANN_ID: entry(1, Sealed(b"late"))})

    assert cache.get(ANN_ID) == entry(2)


OPERATIONS: dict[str, Callable[[RedisClient], object]] = {
    "get": lambda redis: Cache(redis, ttl=timedelta(hours=1)).get(ANN_ID),
    "put": lambda redis: Cache(redis, ttl=timedelta(hours=1)).put({ANN_ID: entry(1)}),
    "ping": lambda redis: Cache(redis, ttl=timedelta(hours=1)).ping(),
    "outbox put": lambda redis: OutboxStore(redis).put({ANN_ID: VALUE}),
    "outbox pages": lambda redis: list(OutboxStore(redis).pages()),
    "outbox discard": lambda redis: OutboxStore(redis).discard({ANN_ID: VALUE}),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_without_redis_every_method_raises_an_error_without_secrets(operation: str) -> None:
    """Callers handle one kind of error. Its text is logged, and contains neither the password nor a value."""
    with connect("redis://:hunter2@127.0.0.1:1/0") as nowhere, pytest.raises(Unavailable) as refusal:
        OPERATIONS[operation](nowhere)

    check_silence(refusal.value, "hunter2", "sealed entry")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_error_of_redis_is_unavailable_without_secrets(redis: RedisClient, redis_url: str, operation: str) -> None:
    """The server's message repeats a part of the command, so it is not passed on. Here a user may do nothing."""
    parts = urlsplit(redis_url)
    commands = ["+hello", "+client|setinfo"]
    redis.acl_setuser("nobody", enabled=True, passwords=["+hunter2"], commands=commands)
    try:
        url = f"redis://nobody:hunter2@{parts.hostname}:{parts.port}/0"
        with connect(url) as nobody, pytest.raises(Unavailable) as refusal:
            OPERATIONS[operation](nobody)
    finally:
        redis.acl_deluser("nobody")

    check_silence(refusal.value, str(ANN_ID), "sealed entry", "hunter2", "NOPERM")


@pytest.mark.parametrize("operation", ["put", "outbox put"])
def test_a_full_redis_is_unavailable(redis: RedisClient, operation: str) -> None:
    """With noeviction it rejects writes. Tokens that were not kept must not count as kept."""
    redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(Unavailable):
            OPERATIONS[operation](redis)
    finally:
        redis.config_set("maxmemory", "0")


def test_a_wrong_password_is_not_shown(redis_url: str) -> None:
    """The most common mistake of a first start."""
    password = redis_url.split(":")[2].partition("@")[0]
    with connect(redis_url.replace(password, "hunter2")) as stranger, pytest.raises(Unavailable) as refusal:
        OPERATIONS["ping"](stranger)

    check_silence(refusal.value, "hunter2", password)


def check_silence(error: BaseException, *words: str) -> None:
    """Neither the message nor a logged traceback contains the words."""
    shown = "".join(traceback.format_exception(error))
    assert [word for word in words if word in shown.replace(__file__, "")] == []
