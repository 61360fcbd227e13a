"""What Microsoft has given and Postgres could not take: kept without expiry until it can. Values come sealed."""

from collections.abc import Mapping
from typing import cast
from uuid import UUID

from redis import Redis
from redis.exceptions import RedisError

from worker.cache.connection import unavailable
from worker.domain.credential import AccountId

_KEY = "token-worker:outbox"  # a hash: one value per account, the newest

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

    def all(self) -> dict[AccountId, bytes]:
        """Everything kept. Few: it grows only while Postgres is away."""
        try:
            kept = cast("dict[bytes, bytes]", self._redis.hgetall(_KEY))
        except RedisError as error:
            raise unavailable(error) from None
        return {AccountId(UUID(account.decode())): value for account, value in kept.items()}

    def discard(self, account: AccountId, value: bytes) -> None:
        """Forget a value that has been stored, unless it has been replaced by a newer one meanwhile."""
        try:
            self._discard(keys=[_KEY], args=[str(account), value])
        except RedisError as error:
            raise unavailable(error) from None
