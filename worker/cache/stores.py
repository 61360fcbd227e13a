"""The values in Redis: cache entries, results that wait for Postgres, records of requests. Opens no sealed value."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from hashlib import sha1
from typing import TypeAlias, cast
from uuid import UUID

from redis.exceptions import NoScriptError, RedisError

from worker.cache.connection import RedisClient, raises_unavailable, unavailable
from worker.domain.account import AccountId
from worker.domain.token import Sealed

_HEADER = len("1 ") + 20 + 1

# Digits of equal number compare as text, so the guard needs no parsing. Equal versions may replace each other.
# All entries in one call: a call for each costs the client more than sealing them.
_PUT = """
for number, key in ipairs(KEYS) do
  local kept, value = redis.call('GETRANGE', key, 0, 22), ARGV[number + 1]
  if not (string.find(kept, '^1 %d+ $') and #kept == 23 and kept > string.sub(value, 1, 23)) then
    redis.call('SET', key, value, 'PX', ARGV[1])
  end
end
"""
_PUT_SHA = sha1(_PUT.encode(), usedforsecurity=False).hexdigest()  # redis-py's own scripts cost a second round trip


#: An entry's version, and the entry itself.
SealedEntry: TypeAlias = tuple[int, Sealed]


class Cache:
    """The cache of one process. Thread-safe. Every method raises Unavailable without Redis."""

    def __init__(self, redis: RedisClient, *, ttl: timedelta) -> None:
        self._redis = redis
        self._ttl = int(ttl.total_seconds() * 1000)

    @raises_unavailable
    def get(self, account: AccountId) -> SealedEntry | None:
        """The account's entry, or None."""
        return _parsed(self._redis.get(self._redis.names.entry(account)))

    @raises_unavailable
    def get_many(self, accounts: Sequence[AccountId]) -> dict[AccountId, SealedEntry]:
        """Those of the accounts that have an entry, in one round trip."""
        values = cast("list[object]", self._redis.mget([self._redis.names.entry(account) for account in accounts]))
        found = zip(accounts, values, strict=True)
        return {account: entry for account, value in found if (entry := _parsed(value))}

    @raises_unavailable
    def put(self, entries: Mapping[AccountId, SealedEntry]) -> None:
        """Store entries in one round trip, each unless a newer one is there."""
        keys = [self._redis.names.entry(account) for account in entries]
        values = [b"1 %020d %s" % entry for entry in entries.values()]
        try:
            self._redis.evalsha(_PUT_SHA, len(keys), *keys, self._ttl, *values)
        except NoScriptError:  # Redis is new, or was flushed of its scripts
            self._redis.script_load(_PUT)
            self._redis.evalsha(_PUT_SHA, len(keys), *keys, self._ttl, *values)

    @raises_unavailable
    def delete(self, accounts: Sequence[AccountId]) -> None:
        """Delete the entries of accounts that are no more."""
        if accounts:
            self._redis.delete(*map(self._redis.names.entry, accounts))

    @raises_unavailable
    def ping(self) -> None:
        self._redis.ping()


def _parsed(value: object) -> SealedEntry | None:
    """None for a value of another format, which is as good as a miss."""
    if not isinstance(value, bytes):
        return None
    header = value[:_HEADER]
    if len(header) != _HEADER or not header.startswith(b"1 ") or not header[2:-1].isdigit():
        return None
    return int(header[2:-1]), Sealed(value[_HEADER:])


_SET_ASIDE_FOR = int(timedelta(days=7).total_seconds())  # seconds, for an operator to look at them
_SET_ASIDE_BYTES = 65_536  # of a value; a sealed result takes about 12 KB
_PAGE = 250  # values of up to 12 KB: one command each way, far within its timeout

_DISCARD = """
for number = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[number]) == ARGV[number + 1] then redis.call('HDEL', KEYS[1], ARGV[number]) end
end
"""


class OutboxStore:
    """Thread-safe. Every method raises Unavailable while Redis is unavailable."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._key, self._unreadable = redis.names.outbox, redis.names.unreadable
        self._discard = redis.register_script(_DISCARD)

    @raises_unavailable
    def put(self, values: Mapping[AccountId, bytes]) -> None:
        """Store values, each in the place of the one that the account had."""
        self._redis.hset(self._key, mapping={str(account): value for account, value in values.items()})

    @raises_unavailable
    def get_many(self, accounts: Collection[AccountId]) -> dict[AccountId, bytes]:
        """The values of those of ``accounts`` that have one."""
        if not self._redis.exists(self._key):  # as nearly always: a hash without fields does not exist
            return {}
        found = cast("list[bytes | None]", self._redis.hmget(self._key, [str(account) for account in accounts]))
        return {account: value for account, value in zip(accounts, found, strict=True) if value is not None}

    def pages(self, cursor: int = 0) -> Iterator[tuple[int, dict[AccountId, bytes]]]:
        """All values in pages, each with the cursor from which to go on after it; 0 is the end.

        A page may be empty though more follow. A value that is there all the while is in at least one page, and cursors
        stay good while others are put or discarded (https://valkey.io/commands/scan/, guarantees).
        """
        while True:
            try:
                page = cast("tuple[int, dict[bytes, bytes]]", self._redis.hscan(self._key, cursor, count=_PAGE))
            except RedisError as error:
                raise unavailable(error) from None
            cursor, found = page
            yield cursor, {account: value for field, value in found.items() if (account := _account(field))}
            if cursor == 0:
                return

    @raises_unavailable
    def size(self) -> int:
        """How many accounts have a value."""
        return self._redis.hlen(self._key)

    @raises_unavailable
    def discard(self, values: Mapping[AccountId, bytes]) -> None:
        """Delete delivered values, but none that a newer one has replaced meanwhile."""
        arguments = [part for account, value in values.items() for part in (str(account), value)]
        self._discard(keys=[self._key], args=arguments)

    @raises_unavailable
    def delete(self, accounts: Collection[AccountId]) -> None:
        """Delete the values of accounts that are no more, also those set aside."""
        if accounts:
            fields = [str(account) for account in accounts]
            self._redis.hdel(self._key, *fields)
            self._redis.hdel(self._unreadable, *fields)

    @raises_unavailable
    def set_aside(self, values: Mapping[AccountId, bytes]) -> None:
        """Move values that do not open out of the way. Their first bytes are kept for a week."""
        self._redis.hset(
            self._unreadable, mapping={str(account): value[:_SET_ASIDE_BYTES] for account, value in values.items()}
        )
        self._redis.expire(self._unreadable, _SET_ASIDE_FOR)
        self.discard(values)


def _account(field: bytes) -> AccountId | None:
    """None for a field that no worker has written."""
    try:
        return AccountId(UUID(field.decode()))
    except ValueError:
        return None


class RequestDedup:
    """Thread-safe. Every method raises Unavailable while Redis is unavailable."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    @raises_unavailable
    def is_new(self, account: AccountId, request: str, window: timedelta) -> bool:
        """Record a request; False if the same one was recorded within ``window``."""
        milliseconds = int(window.total_seconds() * 1000)
        return bool(self._redis.set(self._redis.names.request(account, request), b"", nx=True, px=milliseconds))

    @raises_unavailable
    def release(self, account: AccountId, request: str) -> None:
        """Delete the record of a request that could not be sent."""
        self._redis.delete(self._redis.names.request(account, request))
