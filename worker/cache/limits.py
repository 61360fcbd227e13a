"""Limits that all workers share through Redis: a rate per app registration, and throttled tenants.

A writer to Redis may forge both. So a value counts only within bounds that it leaves by itself, and at once if it is no
worker's: two seconds for a rate, a minute for a throttle.
"""

import threading
import time
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import cast

from redis.exceptions import RedisError

from worker.cache.connection import RedisClient, raises_unavailable
from worker.domain.errors import Unavailable

_WAIT_LIMIT, _PAUSE = 5.0, 0.05  # seconds
_SHARED_LIMIT = timedelta(minutes=1)  # for which a throttle in Redis is believed
_NOTHING = timedelta(0)
_TIME_LIMIT = 32  # characters of a time in Redis; a double has at most 24
_WINDOW = 1000  # milliseconds

# A sliding window counter: requests of this second, and of the last one as far as it reaches into the window. The value
# is "start current previous". One from the future, or with more than the limit, is not a worker's.
_PERMIT = f"""
local limit, wanted = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local start, current, previous = now - now % {_WINDOW}, 0, 0
local value = redis.pcall('GETRANGE', KEYS[1], 0, 63)
if type(value) == 'string' then
  local begun, newer, older = string.match(value, '^(%d+) (%d+) (%d+)$')
  begun, newer, older = tonumber(begun), tonumber(newer), tonumber(older)
  if begun and newer <= limit and older <= limit then
    if begun == start then current, previous = newer, older end
    if begun == start - {_WINDOW} then previous = newer end
  end
end
local used = current + math.floor(previous * ({_WINDOW} - (now - start)) / {_WINDOW})
local permitted = math.max(0, math.min(wanted, limit - used))
if permitted > 0 then
  redis.call('SET', KEYS[1], string.format('%.0f %d %d', start, current + permitted, previous), 'PX', {2 * _WINDOW})
end
return permitted
"""


class RateLimiter:
    """Requests per second of one app registration, by all workers together; by this process alone without Redis."""

    def __init__(self, redis: RedisClient, *, per_second: int) -> None:
        self._names = redis.names
        self._limit = per_second
        self._permit = redis.register_script(_PERMIT)
        self._windows: dict[str, tuple[int, int, int]] = {}  # of this process: start, current and previous requests
        self._lock = threading.Lock()

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
            return int(cast("int", self._permit(keys=[self._names.rate(client)], args=[self._limit, wanted])))
        except RedisError:
            return self._try_alone(client, wanted)

    def _try_alone(self, client: str, wanted: int) -> int:
        """As the script does, in this process's memory."""
        now = time.monotonic_ns() // 1_000_000
        start = now - now % _WINDOW
        with self._lock:
            begun, current, previous = self._windows.get(client, (start, 0, 0))
            if begun != start:
                current, previous = 0, current if begun == start - _WINDOW else 0
            used = current + previous * (_WINDOW - (now - start)) // _WINDOW
            permitted = max(0, min(wanted, self._limit - used))
            self._windows[client] = (start, current + permitted, previous)
        return permitted


class TenantThrottle:
    """Tenants that Microsoft throttles, known by the domain of the address: a token request to ``/common`` names none.

    A process believes its own throttles as long as Microsoft has said, and those in Redis for a minute at most. It
    shares a longer one again each minute. Thread-safe, and raises nothing: without Redis a process knows its own.
    """

    def __init__(self, redis: RedisClient, *, utcnow: Callable[[], datetime]) -> None:
        self._redis = redis
        self._utcnow = utcnow
        self._own: dict[tuple[str, str], datetime] = {}
        self._lock = threading.Lock()

    def throttle(self, client: str, domain: str, wait: timedelta) -> None:
        """Send no request for a tenant for ``wait``, or for longer if that was recorded before."""
        now = self._utcnow()
        with self._lock:
            self._own = {key: until for key, until in self._own.items() if until > now}
            self._own[client, domain] = max(now + wait, self._own.get((client, domain), now))
        self.waits(client, [domain])

    def waits(self, client: str, domains: Collection[str]) -> dict[str, timedelta]:
        """The throttled ones among ``domains``, and for how long they still are."""
        now = self._utcnow()
        own = {domain: until - now for domain in domains if (until := self._own.get((client, domain))) and until > now}
        try:
            shared = self._shared(client, domains, now)
            longest = {domain: min(wait, _SHARED_LIMIT) for domain, wait in own.items()}
            # Others ask for theirs each minute or so, so half of it is early enough.
            ending = {domain: wait for domain, wait in longest.items() if shared.get(domain, _NOTHING) <= wait / 2}
            self._share(client, ending, now)
        except Unavailable:
            return own
        return shared | {domain: max(wait, shared.get(domain, wait)) for domain, wait in own.items()}

    @raises_unavailable
    def _shared(self, client: str, domains: Collection[str], now: datetime) -> dict[str, timedelta]:
        if not domains:
            return {}
        with self._redis.pipeline(transaction=False) as pipeline:
            for domain in domains:
                pipeline.getrange(self._redis.names.throttle(client, domain), 0, _TIME_LIMIT)
            found = pipeline.execute(raise_on_error=False)
        left = {domain: _seconds(until) - now.timestamp() for domain, until in zip(domains, found, strict=True)}
        limit = _SHARED_LIMIT.total_seconds()
        return {domain: timedelta(seconds=wait) for domain, wait in left.items() if 0 < wait <= limit}

    @raises_unavailable
    def _share(self, client: str, waits: dict[str, timedelta], now: datetime) -> None:
        for domain, wait in waits.items():
            key, milliseconds = self._redis.names.throttle(client, domain), int(wait.total_seconds() * 1000)
            self._redis.set(key, repr((now + wait).timestamp()), px=max(1, milliseconds))


def _seconds(value: object) -> float:
    """Seconds since the epoch; 0, which is over, for a value that no worker has written, or a key of another type."""
    try:
        return float(value) if isinstance(value, bytes) and len(value) <= _TIME_LIMIT else 0.0
    except ValueError:
        return 0.0
