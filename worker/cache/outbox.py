"""What Microsoft has given and Postgres could not take: kept without expiry until it can. Values come sealed."""

from collections.abc import Collection, Mapping
from typing import cast
from uuid import UUID

from redis import Redis
from redis.exceptions import RedisError

from worker.cache.connection import unavailable
from worker.domain.credential import AccountId

_KEY = "token-worker:outbox"  # a hash: one value per account, the newest

_SOME = 500

_DISCARD = """
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
"""


class Outbox:
    """Thread-safe. Every method raises Unavailable without Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._discard = redis.register_script(_DISCARD)

    def put(self, values: Mapping[AccountId, bytes]) -> None:
        """Keep values, each replacing what the account had."""
        try:
            self._redis.hset(_KEY, mapping={str(account): value for account, value in values.items()})
        except RedisError as error:
            raise unavailable(error) from None

    def add(self, values: Mapping[AccountId, bytes]) -> None:
        """Keep values of accounts that have none yet; what somebody else has kept meanwhile is as good."""
        try:
            pipeline = self._redis.pipeline(transaction=False)
            for account, value in values.items():
                pipeline.hsetnx(_KEY, str(account), value)
            pipeline.execute()
        except RedisError as error:
            raise unavailable(error) from None

    def get(self, account: AccountId) -> bytes | None:
        """What the account has, or None."""
        try:
            return cast("bytes | None", self._redis.hget(_KEY, str(account)))
        except RedisError as error:
            raise unavailable(error) from None

    def among(self, accounts: Collection[AccountId]) -> frozenset[AccountId]:
        """Those of ``accounts`` that have something here."""
        try:
            if not self._redis.exists(_KEY):  # as ever, but for outages
                return frozenset()
            kept = cast("list[bytes | None]", self._redis.hmget(_KEY, [str(account) for account in accounts]))
        except RedisError as error:
            raise unavailable(error) from None
        return frozenset(account for account, value in zip(accounts, kept, strict=True) if value is not None)

    def some(self) -> dict[AccountId, bytes]:
        """A part of what is kept, all of it if it is little: after a long outage it may be more than fits in memory."""
        try:
            _cursor, kept = cast("tuple[int, dict[bytes, bytes]]", self._redis.hscan(_KEY, count=_SOME))
        except RedisError as error:
            raise unavailable(error) from None
        return {account: value for field, value in kept.items() if (account := _account(field))}

    def size(self) -> int:
        """How many accounts have something here."""
        try:
            return self._redis.hlen(_KEY)
        except RedisError as error:
            raise unavailable(error) from None

    def discard(self, account: AccountId, value: bytes) -> None:
        """Forget a value that has been stored, unless it has been replaced by a newer one meanwhile."""
        try:
            self._discard(keys=[_KEY], args=[str(account), value])
        except RedisError as error:
            raise unavailable(error) from None


def _account(field: bytes) -> AccountId | None:
    """None for a stray field of somebody else's."""
    try:
        return AccountId(UUID(field.decode()))
    except ValueError:
        return None
