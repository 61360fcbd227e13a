"""Limits that all workers share through Redis: a rate per app registration, and throttled tenants."""

import time
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import cast

import limits
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from worker.cache.connection import RedisClient, raises_unavailable

_WAIT_LIMIT, _PAUSE = 5.0, 0.05  # seconds
_THROTTLE_LIMIT = 86_400.0  # seconds; a Retry-After is capped at the same
_TIME_LIMIT = 32  # characters of a time in Redis; a double has at most 24


class RateLimiter:
    """Requests per second of one app registration, by all workers together; by this process alone without Redis."""

    def __init__(self, redis: RedisClient, *, per_second: int) -> None:
        self._rate = limits.RateLimitItemPerSecond(per_second)
        storage = RedisStorage(
            "redis://", connection_pool=redis.connection_pool, key_prefix=redis.names.rate, wrap_exceptions=True
        )
        self._shared = SlidingWindowCounterRateLimiter(storage)
        self._local = SlidingWindowCounterRateLimiter(MemoryStorage())

    def acquire(self, client: str, wanted: int) -> int:
        """Between 1 and ``wanted`` requests that may be sent now, after a wait of up to five seconds; 0 if it would be
        longer."""
        waited = 0.0
        while waited < _WAIT_LIMIT:
            if permitted := self._try(client, wanted):
                return permitted
            time.sleep(_PAUSE)
            waited += _PAUSE
        return 0

    def _try(self, client: str, wanted: int) -> int:
        try:
            return self._hit(self._shared, client, wanted)
        except StorageError:
            return self._hit(self._local, client, wanted)

    def _hit(self, limiter: SlidingWindowCounterRateLimiter, client: str, wanted: int) -> int:
        wanted = min(wanted, self._rate.amount)
        if limiter.hit(self._rate, client, cost=wanted):
            return wanted
        left = min(wanted, limiter.get_window_stats(self._rate, client).remaining)
        return left if left > 0 and limiter.hit(self._rate, client, cost=left) else 0


class TenantThrottle:
    """Tenants that Microsoft throttles, known by the domain of the address: a token request to ``/common`` names none.

    Every method raises Unavailable while Redis is unavailable.
    """

    def __init__(self, redis: RedisClient, *, utcnow: Callable[[], datetime]) -> None:
        self._redis = redis
        self._utcnow = utcnow

    @raises_unavailable
    def throttle(self, client: str, domain: str, wait: timedelta) -> None:
        """Send no request for a tenant for ``wait``, or for longer if that was recorded before."""
        if wait <= self.waits(client, [domain]).get(domain, timedelta(0)):
            return
        until = (self._utcnow() + wait).timestamp()
        milliseconds = max(1, int(wait.total_seconds() * 1000))
        self._redis.set(self._redis.names.throttle(client, domain), repr(until), px=milliseconds)

    @raises_unavailable
    def waits(self, client: str, domains: Collection[str]) -> dict[str, timedelta]:
        """The throttled ones among ``domains``, and for how long they still are."""
        if not domains:
            return {}
        keys = [self._redis.names.throttle(client, domain) for domain in domains]
        found = cast("list[bytes | None]", self._redis.mget(keys))
        now = self._utcnow().timestamp()
        left = {domain: _seconds(until) - now for domain, until in zip(domains, found, strict=True) if until}
        return {domain: timedelta(seconds=wait) for domain, wait in left.items() if 0 < wait <= _THROTTLE_LIMIT}


def _seconds(value: bytes) -> float:
    """Seconds since the epoch; 0, which is over, for a value that no worker has written."""
    try:
        return float(value[:_TIME_LIMIT])
    except ValueError:
        return 0.0
