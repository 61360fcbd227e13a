"""Locks in Redis with an owner check, for the time that Postgres, which has better ones, is away."""

from datetime import timedelta
from uuid import uuid4

from redis import Redis
from redis.exceptions import RedisError

from worker.cache.connection import unavailable
from worker.domain.credential import AccountId

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class Locks:
    """One lock per account, and a note of why it is better left alone for a while. Thread-safe.

    Every method raises Unavailable without Redis.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._release = redis.register_script(_RELEASE)

    def acquire(self, account: AccountId, *, lease: timedelta) -> str | None:
        """The owner's mark, or None if somebody else has the lock. It ends by itself with the lease."""
        owner = uuid4().hex
        try:
            taken = self._redis.set(_lock(account), owner, nx=True, px=int(lease.total_seconds() * 1000))
        except RedisError as error:
            raise unavailable(error) from None
        return owner if taken else None

    def release(self, account: AccountId, owner: str) -> None:
        """Give the lock back, unless the lease has ended and it is somebody else's now."""
        try:
            self._release(keys=[_lock(account)], args=[owner])
        except RedisError as error:
            raise unavailable(error) from None

    def leave_alone(self, account: AccountId, code: str, span: timedelta) -> None:
        """Note that asking about the account has failed, with which code, and for how long not to ask again."""
        try:
            self._redis.set(_note(account), code.encode(), px=max(1, int(span.total_seconds() * 1000)))
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
        return (code.decode(), timedelta(milliseconds=left)) if code is not None and left > 0 else None


def _lock(account: AccountId) -> str:
    return f"token-worker:lock:{account}"


def _note(account: AccountId) -> str:
    return f"token-worker:failed:{account}"
