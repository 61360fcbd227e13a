"""What the workers owe Microsoft together: a rate per app registration, and pauses per tenant. Shared through Redis."""

import time
from collections.abc import Collection
from datetime import timedelta

import limits
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis import Redis
from redis.exceptions import RedisError

from worker.cache.connection import unavailable

_PREFIX = "token-worker:rate"
_PATIENCE, _PAUSE = 5.0, 0.05  # seconds


class RateLimiter:
    """Questions per second of one app registration, of all workers together; of this process alone without Redis."""

    def __init__(self, redis: Redis, *, per_second: int) -> None:
        self._rate = limits.RateLimitItemPerSecond(per_second)
        storage = RedisStorage(
            "redis://", connection_pool=redis.connection_pool, key_prefix=_PREFIX, wrap_exceptions=True
        )
        self._together = SlidingWindowCounterRateLimiter(storage)
        self._alone = SlidingWindowCounterRateLimiter(MemoryStorage())

    def take(self, client: str, most: int) -> int:
        """Between 1 and ``most`` questions that may be asked now, after a wait if need be; 0 if it would be long."""
        waited = 0.0
        while waited < _PATIENCE:
            if taken := self._try(client, most):
                return taken
            time.sleep(_PAUSE)
            waited += _PAUSE
        return 0

    def _try(self, client: str, most: int) -> int:
        try:
            return self._hit(self._together, client, most)
        except StorageError:
            return self._hit(self._alone, client, most)

    def _hit(self, limiter: SlidingWindowCounterRateLimiter, client: str, most: int) -> int:
        wanted = min(most, self._rate.amount)
        if limiter.hit(self._rate, client, cost=wanted):
            return wanted
        left = min(wanted, limiter.get_window_stats(self._rate, client).remaining)
        return left if left > 0 and limiter.hit(self._rate, client, cost=left) else 0


class Pauses:
    """Tenants that Microsoft throttles, by the domain of the address. Every method raises Unavailable without Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def pause(self, client: str, domain: str, span: timedelta) -> None:
        """Leave a tenant alone for ``span``, or for longer if it has been so decided already."""
        key, milliseconds = _key(client, domain), max(1, int(span.total_seconds() * 1000))
        try:
            pipeline = self._redis.pipeline()
            pipeline.set(key, b"1", px=milliseconds, nx=True)
            pipeline.pexpire(key, milliseconds, gt=True)
            pipeline.execute()
        except RedisError as error:
            raise unavailable(error) from None

    def left(self, client: str, domains: Collection[str]) -> dict[str, timedelta]:
        """The paused ones among ``domains``, and for how long they still are."""
        try:
            pipeline = self._redis.pipeline(transaction=False)
            for domain in domains:
                pipeline.pttl(_key(client, domain))
            spans = pipeline.execute()
        except RedisError as error:
            raise unavailable(error) from None
        return {domain: timedelta(milliseconds=span) for domain, span in zip(domains, spans, strict=True) if span > 0}


def _key(client: str, domain: str) -> str:
    return f"token-worker:pause:{client}:{domain}"
