"""Notes of who has asked the workers for what, so that a thousand readers ask once."""

from datetime import timedelta
from hashlib import blake2b

from redis import Redis

from worker.cache.connection import raises_unavailable
from worker.domain.account import AccountId


class RequestDedup:
    """Thread-safe. Every method raises Unavailable without Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    @raises_unavailable
    def is_new(self, account: AccountId, question: str, span: timedelta) -> bool:
        """Note a question; False if somebody has asked the very same within ``span``."""
        return bool(self._redis.set(_key(account, question), b"", nx=True, px=int(span.total_seconds() * 1000)))

    @raises_unavailable
    def forget(self, account: AccountId, question: str) -> None:
        """Strike out a note: the question has reached nobody."""
        self._redis.delete(_key(account, question))


def _key(account: AccountId, question: str) -> str:
    digest = blake2b(question.encode(), digest_size=12).hexdigest()
    return f"token-worker:asked:{account}:{digest}"
