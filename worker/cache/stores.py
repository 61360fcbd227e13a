"""The values in Redis: cache entries, results that wait for Postgres, records of requests. Opens no sealed value."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from hashlib import sha1
from typing import Any, TypeAlias, cast
from uuid import UUID

from redis.exceptions import NoScriptError, RedisError, ResponseError

from worker.cache.connection import RedisClient, raises_unavailable
from worker.domain.account import AccountId
from worker.domain.token import Sealed

_HEADER = len("1 ") + 20 + 1
_LONGEST_ENTRY = 131_072  # bytes; an entry with Microsoft's tokens takes about 12 KB

# Digits of equal number compare as text, so the guard needs no parsing. Equal versions may replace each other. A key of
# another type is replaced. All entries in one call: a call for each costs the client more than sealing them.
_PUT = """
local kept_ones = {}
for number = 1, #KEYS do
  local key, value, over = KEYS[number], ARGV[2 * number], ARGV[2 * number + 1]
  local kept = redis.pcall('GETRANGE', key, 0, 22)
  if type(kept) == 'string' and #kept == 23 and string.find(kept, '^1 %d+ $') and kept > string.sub(value, 1, 23)
      and kept ~= over then
    kept_ones[#kept_ones + 1] = number - 1
    kept_ones[#kept_ones + 1] = kept
  else
    redis.call('SET', key, value, 'PX', ARGV[1])
  end
end
return kept_ones
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
        try:
            return _parsed(self._redis.getrange(self._redis.names.entry(account), 0, _LONGEST_ENTRY))
        except ResponseError as error:
            if is_wrong_type(error):
                return None
            raise

    @raises_unavailable
    def get_many(self, accounts: Sequence[AccountId]) -> dict[AccountId, SealedEntry]:
        """Those of the accounts that have an entry, in one round trip."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for account in accounts:
                pipeline.getrange(self._redis.names.entry(account), 0, _LONGEST_ENTRY)
            values = pipeline.execute(raise_on_error=False)
        for value in values:
            if isinstance(value, RedisError) and not is_wrong_type(value):
                raise value
        found = zip(accounts, values, strict=True)
        return {account: entry for account, value in found if (entry := _parsed(value))}

    @raises_unavailable
    def put(
        self, entries: Mapping[AccountId, SealedEntry], *, over: Mapping[AccountId, int] | None = None
    ) -> dict[AccountId, int]:
        """Store entries in one round trip, each unless a newer one is there. Returns the versions of the newer ones.

        ``over``: of these accounts, an entry with this version is replaced although it is higher.
        """
        accounts, forged = list(entries), over or {}
        keys = [self._redis.names.entry(account) for account in accounts]
        arguments: list[Any] = [self._ttl]
        for account in accounts:
            arguments.append(_header(entries[account][0]) + entries[account][1])
            arguments.append(_header(forged[account]) if account in forged else b"")
        try:
            kept = self._redis.evalsha(_PUT_SHA, len(keys), *keys, *arguments)
        except NoScriptError:  # Redis is new, or was flushed of its scripts
            self._redis.script_load(_PUT)
            kept = self._redis.evalsha(_PUT_SHA, len(keys), *keys, *arguments)
        found = iter(cast("list[Any]", kept))
        return {accounts[number]: int(header[2:]) for number, header in zip(found, found, strict=True)}

    @raises_unavailable
    def delete(self, accounts: Sequence[AccountId]) -> None:
        """Delete the entries of accounts that are no more."""
        if accounts:
            self._redis.delete(*map(self._redis.names.entry, accounts))

    @raises_unavailable
    def ping(self) -> None:
        self._redis.ping()


def _header(version: int) -> bytes:
    return b"1 %020d " % version


def is_wrong_type(error: RedisError) -> bool:
    """Whether another program has put a value of another type under a key."""
    return isinstance(error, ResponseError) and str(error).startswith("WRONGTYPE")


def _parsed(value: object) -> SealedEntry | None:
    """None for a value of another format, which is as good as a miss."""
    if not isinstance(value, bytes) or len(value) > _LONGEST_ENTRY:
        return None
    header = value[:_HEADER]
    if len(header) != _HEADER or not header.startswith(b"1 ") or not header[2:-1].isdigit():
        return None
    return int(header[2:-1]), Sealed(value[_HEADER:])


_SET_ASIDE_FOR = int(timedelta(days=7).total_seconds())  # seconds, for an operator to look at them
#: The longest value of the outbox in bytes; a sealed result takes about 12 KB. Of a longer one, so much and one byte
#: more is read and kept.
LONGEST_RESULT = 65_536
_PAGE = 250  # values of up to 12 KB: one command each way, far within its timeout
_FIELD_LENGTH = 36  # characters of an account's id

# A writer to Redis may have put anything there. Values are cut on the server. Fields that are no ids are deleted, and a
# key of another type is, too.
_SCAN = f"""
local page = redis.pcall('HSCAN', KEYS[1], ARGV[1], 'COUNT', {_PAGE})
if page.err then
  redis.call('DEL', KEYS[1])
  return {{'0', {{}}}}
end
local found = {{}}
for number = 1, #page[2], 2 do
  local field, value = page[2][number], page[2][number + 1]
  if #field == {_FIELD_LENGTH} then
    found[#found + 1] = field
    found[#found + 1] = string.sub(value, 1, {LONGEST_RESULT + 1})
  else
    redis.call('HDEL', KEYS[1], field)
  end
end
return {{page[1], found}}
"""
_GET = f"""
local found = {{}}
if redis.call('TYPE', KEYS[1]).ok == 'hash' then
  for number, field in ipairs(ARGV) do
    local value = redis.call('HGET', KEYS[1], field)
    found[number] = value and string.sub(value, 1, {LONGEST_RESULT + 1})
  end
end
return found
"""
_KEEP = """
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
for number = 1, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[number], ARGV[number + 1]) end
"""
# Deletes values that are, as far as they were read, still the same.
_DISCARD = f"""
for number = 1, #ARGV, 2 do
  local value = redis.call('HGET', KEYS[1], ARGV[number])
  if value and string.sub(value, 1, {LONGEST_RESULT + 1}) == ARGV[number + 1] then
    redis.call('HDEL', KEYS[1], ARGV[number])
  end
end
"""


class OutboxStore:
    """Thread-safe. Every method raises Unavailable while Redis is unavailable."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._key, self._unreadable = redis.names.outbox, redis.names.unreadable
        scripts = (_SCAN, _GET, _KEEP, _DISCARD)
        self._scan, self._get, self._keep, self._discard = map(redis.register_script, scripts)

    @raises_unavailable
    def put(self, values: Mapping[AccountId, bytes]) -> None:
        """Store values, each in the place of the one that the account had."""
        self._keep(keys=[self._key], args=_pairs(values))

    @raises_unavailable
    def get_many(self, accounts: Collection[AccountId]) -> dict[AccountId, bytes]:
        """The values of those of ``accounts`` that have one."""
        if not self._redis.exists(self._key):  # as nearly always: a hash without fields does not exist
            return {}
        found = cast("list[bytes | None]", self._get(keys=[self._key], args=[str(account) for account in accounts]))
        return {account: value for account, value in zip(accounts, found, strict=False) if value is not None}

    def pages(self, cursor: int = 0) -> Iterator[tuple[int, dict[AccountId, bytes]]]:
        """All values in pages, each with the cursor from which to go on after it; 0 is the end.

        A page may be empty though more follow. A value that is there all the while is in at least one page, and cursors
        stay good while others are put or discarded (https://valkey.io/commands/scan/, guarantees).
        """
        while True:
            cursor, page = self._page(cursor)
            yield cursor, page
            if cursor == 0:
                return

    @raises_unavailable
    def _page(self, cursor: int) -> tuple[int, dict[AccountId, bytes]]:
        following, found = cast("tuple[bytes, list[bytes]]", self._scan(keys=[self._key], args=[cursor]))
        values = dict(zip(found[::2], found[1::2], strict=True))
        if foreign := [field for field in values if _account(field) is None]:
            self._redis.hdel(self._key, *foreign)
        return int(following), {account: value for field, value in values.items() if (account := _account(field))}

    @raises_unavailable
    def size(self) -> int:
        """How many accounts have a value."""
        try:
            return self._redis.hlen(self._key)
        except ResponseError as error:
            if is_wrong_type(error):
                return 0
            raise

    @raises_unavailable
    def discard(self, values: Mapping[AccountId, bytes]) -> None:
        """Delete delivered values, but none that a newer one has replaced meanwhile."""
        self._discard(keys=[self._key], args=_pairs(values))

    @raises_unavailable
    def delete(self, accounts: Collection[AccountId]) -> None:
        """Delete the values of accounts that are no more, also those set aside."""
        if accounts:
            fields = [str(account) for account in accounts]
            self._redis.hdel(self._key, *fields)
            self._redis.hdel(self._unreadable, *fields)

    @raises_unavailable
    def set_aside(self, values: Mapping[AccountId, bytes]) -> None:
        """Move values that do not open out of the way. They are kept for a week, as far as they were read."""
        self._keep(keys=[self._unreadable], args=_pairs(values))
        self._redis.expire(self._unreadable, _SET_ASIDE_FOR)
        self._discard(keys=[self._key], args=_pairs(values))


def _pairs(values: Mapping[AccountId, bytes]) -> list[str | bytes]:
    return [part for account, value in values.items() for part in (str(account), value)]


def _account(field: bytes) -> AccountId | None:
    """None for a field that no worker has written."""
    try:
        account = UUID(field.decode())
    except ValueError:
        return None
    return AccountId(account) if str(account).encode() == field else None


class RequestDedup:
    """Thread-safe. Every method raises Unavailable while Redis is unavailable."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    @raises_unavailable
    def is_new(self, account: AccountId, request: str, window: timedelta) -> bool:
        """Record a request; False if the same one was recorded within ``window``.

        A record that would last for longer is no worker's or consumer's, and is replaced.
        """
        key, milliseconds = self._redis.names.request(account, request), int(window.total_seconds() * 1000)
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.set(key, b"", nx=True, px=milliseconds)
            pipeline.pttl(key)
            is_new, left = pipeline.execute()
        if is_new or 0 <= left <= milliseconds:
            return bool(is_new)
        self._redis.set(key, b"", px=milliseconds)
        return True

    @raises_unavailable
    def release(self, account: AccountId, request: str) -> None:
        """Delete the record of a request that could not be sent."""
        self._redis.delete(self._redis.names.request(account, request))
