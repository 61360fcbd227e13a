"""Locks in Redis with an owner check: who spends an account's refresh token, for those who cannot ask Postgres.

There are two kinds of holder. A worker has the account's lease in Postgres, and shows here what it holds; among workers
the lease decides, so one may take over what another has left. Who cannot reach Postgres has nothing but the lock: it is
respected by everybody, and respects everybody.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import cast
from uuid import uuid4

from redis import Redis
from redis.exceptions import RedisError

from worker.cache.connection import unavailable
from worker.domain.account import AccountId, LeaseId

_BRIDGE = "bridge:"  # begins the mark of a holder without a lease

_LONGEST_BRIDGE = 120_000  # milliseconds; a process without a lease takes a lock for half of it

# A lock without a time limit, or with a longer one than any process sets, is held by none.
_HOLD = f"""
local bridged = {{}}
for number, key in ipairs(KEYS) do
  local owner = redis.call('GET', key)
  local left = redis.call('PTTL', key)
  if owner and string.sub(owner, 1, {len(_BRIDGE)}) == '{_BRIDGE}' and left > 0 and left <= {_LONGEST_BRIDGE} then
    bridged[#bridged + 1] = number
  else
    redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
  end
end
return bridged
"""

_RELEASE = """
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then redis.call('DEL', key) end
end
"""


class Locks:
    """One lock per account, and a note of why it is better left alone for a while. Thread-safe.

    Every method raises Unavailable without Redis.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._hold = redis.register_script(_HOLD)
        self._release = redis.register_script(_RELEASE)

    def acquire(self, account: AccountId, *, lease: timedelta) -> str | None:
        """The lock, for somebody without a lease: the owner's mark, or None if another has it. It ends by itself."""
        owner = f"{_BRIDGE}{uuid4().hex}"
        try:
            taken = self._redis.set(_lock(account), owner, nx=True, px=_milliseconds(lease))
        except RedisError as error:
            raise unavailable(error) from None
        return owner if taken else None

    def hold(self, accounts: Sequence[AccountId], holder: LeaseId, *, lease: timedelta) -> frozenset[AccountId]:
        """Lock what is leased. Returns the accounts that somebody without a lease is asking about: they stay theirs."""
        try:
            bridged = cast("list[int]", self._hold(keys=_locks(accounts), args=[str(holder), _milliseconds(lease)]))
        except RedisError as error:
            raise unavailable(error) from None
        return frozenset(accounts[number - 1] for number in bridged)

    def release(self, accounts: Collection[AccountId], owner: str | LeaseId) -> None:
        """Give locks back, except those that have ended and are somebody else's now."""
        try:
            self._release(keys=_locks(accounts), args=[str(owner)])
        except RedisError as error:
            raise unavailable(error) from None

    def leave_alone(self, account: AccountId, code: str, span: timedelta) -> None:
        """Note that asking about the account has failed, with which code, and for how long not to ask again."""
        try:
            self._redis.set(_note(account), code.encode(), px=_milliseconds(span))
        except RedisError as error:
            raise unavailable(error) from None

    def left_alone(self, account: AccountId) -> tuple[str, timedelta] | None:
        """The code of the last failure and how long its note still stands, or None."""
        try:
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.get(_note(account))
            pipeline.pttl(_note(account))
            code, left = pipeline.execute()
        except RedisError as error:
            raise unavailable(error) from None
        return (
            (code.decode("utf-8", "replace"), timedelta(milliseconds=left)) if code is not None and left > 0 else None
        )


def _lock(account: AccountId) -> str:
    return f"token-worker:lock:{account}"


def _locks(accounts: Collection[AccountId]) -> list[str]:
    return [_lock(account) for account in accounts]


def _milliseconds(span: timedelta) -> int:
    return max(1, int(span.total_seconds() * 1000))


def _note(account: AccountId) -> str:
    return f"token-worker:failed:{account}"
