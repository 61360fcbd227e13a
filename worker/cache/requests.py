"""Notes of who has asked the workers for what, so that a thousand readers ask once."""

from datetime import timedelta
from hashlib import blake2b

from redis import Redis
from redis.exceptions import RedisError

from worker.cache.connection import unavailable
from worker.domain.account import AccountId


class RequestDedup:
    """Thread-safe. Every method raises Unavailable without Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def is_new(self, account: AccountId, question: str, span: timedelta) -> bool:
        """Note a question; False if somebody has asked the very same within ``span``."""
        try:
            return bool(self._redis.set(_key(account, question), b"", nx=True, px=int(span.total_seconds() * 1000)))
        except RedisError as error:
            raise unavailable(error) from None

    def forget(self, account: AccountId, question: str) -> None:
        """Strike out a note: the question has reached nobody."""
        try:
            self._redis.delete(_key(account, question))
        except RedisError as error:
            raise unavailable(error) from None


def _key(account: AccountId, question: str) -> str:
    digest = blake2b(question.encode(), digest_size=12).hexdigest()
    return f"token-worker:asked:{account}:{digest}"
