"""Which refreshes were requested from the workers, so that a thousand consumers send one request."""

from datetime import timedelta
from hashlib import blake2b

from redis import Redis

from worker.cache.connection import raises_unavailable
from worker.domain.account import AccountId


class RequestDedup:
    """Thread-safe. Every method raises Unavailable while Redis is unavailable."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    @raises_unavailable
    def is_new(self, account: AccountId, request: str, window: timedelta) -> bool:
        """Record a request; False if the same one was recorded within ``window``."""
        milliseconds = int(window.total_seconds() * 1000)
        return bool(self._redis.set(_key(account, request), b"", nx=True, px=milliseconds))

    @raises_unavailable
    def release(self, account: AccountId, request: str) -> None:
        """Delete the record of a request that could not be sent."""
        self._redis.delete(_key(account, request))


def _key(account: AccountId, request: str) -> str:
    digest = blake2b(request.encode(), digest_size=12).hexdigest()
    return f"token-worker:asked:{account}:{digest}"
