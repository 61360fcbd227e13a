"""What the workers owe Microsoft together: a rate per app registration, and pauses per tenant. Shared through Redis."""

import time
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import cast

import limits
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis import Redis

from worker.cache.connection import raises_unavailable

_PREFIX = "token-worker:rate"
_PATIENCE, _PAUSE = 5.0, 0.05  # seconds
_LONGEST_PAUSE = 86_400.0  # seconds; what is read as Retry-After is capped at the same
_LONGEST_TIME = 32  # characters of a time in Redis; a double has at most 24


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


class TenantThrottle:
    """Tenants that Microsoft throttles, by the domain of the address. Every method raises Unavailable without Redis."""

    def __init__(self, redis: Redis, *, utcnow: Callable[[], datetime]) -> None:
        self._redis = redis
        self._utcnow = utcnow

    @raises_unavailable
    def pause(self, client: str, domain: str, span: timedelta) -> None:
        """Leave a tenant alone for ``span``, or for longer if it has been so decided already."""
        if span <= self.left(client, [domain]).get(domain, timedelta(0)):
            return
        until = (self._utcnow() + span).timestamp()
        self._redis.set(_key(client, domain), repr(until), px=max(1, int(span.total_seconds() * 1000)))

    @raises_unavailable
    def left(self, client: str, domains: Collection[str]) -> dict[str, timedelta]:
        """The paused ones among ``domains``, and for how long they still are."""
        found = cast("list[bytes | None]", self._redis.mget([_key(client, domain) for domain in domains]))
        now = self._utcnow().timestamp()
        spans = {domain: _seconds(until) - now for domain, until in zip(domains, found, strict=True) if until}
        return {domain: timedelta(seconds=span) for domain, span in spans.items() if 0 < span <= _LONGEST_PAUSE}


def _seconds(value: bytes) -> float:
    """Seconds since the epoch; 0, which is over, for a value that no worker has written."""
    try:
        return float(value[:_LONGEST_TIME])
    except ValueError:
        return 0.0


def _key(client: str, domain: str) -> str:
    return f"token-worker:pause:{client}:{domain}"
