"""Sealed entries in Redis, guarded by version; a copy of Postgres, never the truth. Knows no key and opens nothing.

A value is ``1 <version, 20 digits> <sealed entry>``: the version stands in front, so that Redis itself can refuse to
replace a newer entry by an older one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha1
from typing import cast

from redis import Redis
from redis.exceptions import NoScriptError

from worker.cache.connection import raises_unavailable
from worker.domain.account import AccountId
from worker.domain.secret import Sealed

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


@dataclass(slots=True)
class Item:
    """One sealed entry and the version it carries."""

    account_id: AccountId
    version: int
    sealed: Sealed


class Cache:
    """The cache of one process. Thread-safe. Every method raises Unavailable without Redis."""

    def __init__(self, redis: Redis, *, ttl: timedelta) -> None:
        self._redis = redis
        self._ttl = int(ttl.total_seconds() * 1000)

    @raises_unavailable
    def get(self, account: AccountId) -> Item | None:
        """The account's entry, or None."""
        value = self._redis.get(_key(account))
        return _item(account, value) if isinstance(value, bytes) else None

    @raises_unavailable
    def get_many(self, accounts: Sequence[AccountId]) -> dict[AccountId, Item]:
        """Those of the accounts that have an entry, in one round trip."""
        values = cast("list[object]", self._redis.mget([_key(account) for account in accounts]))
        found = zip(accounts, values, strict=True)
        items = [_item(account, value) for account, value in found if isinstance(value, bytes)]
        return {item.account_id: item for item in items if item}

    @raises_unavailable
    def put(self, items: Sequence[Item]) -> None:
        """Store entries in one round trip, each unless a newer one is there."""
        try:
            self._put_all(items)
        except NoScriptError:  # Redis is new, or was flushed of its scripts
            self._redis.script_load(_PUT)
            self._put_all(items)

    def _put_all(self, items: Sequence[Item]) -> None:
        keys = [_key(item.account_id) for item in items]
        values = [b"1 %020d %s" % (item.version, item.sealed) for item in items]
        self._redis.evalsha(_PUT_SHA, len(keys), *keys, self._ttl, *values)

    @raises_unavailable
    def ping(self) -> None:
        self._redis.ping()


def _key(account: AccountId) -> str:
    return f"token-worker:entry:{account}"


def _item(account: AccountId, value: bytes) -> Item | None:
    header = value[:_HEADER]
    if len(header) != _HEADER or not header.startswith(b"1 ") or not header[2:-1].isdigit():
        return None  # not ours, or of a format to come: as good as a miss
    return Item(account, int(header[2:-1]), Sealed(value[_HEADER:]))
