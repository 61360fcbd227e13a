"""Heartbeats in Redis. A value for each live process, an index of them, and when the last sweep ended."""

from datetime import UTC, datetime, timedelta
from hashlib import sha1
from typing import Any, cast

from redis.exceptions import NoScriptError, ResponseError

from worker.cache.connection import RedisClient, raises_unavailable
from worker.domain.heartbeat import LONGEST, Heartbeat, LiveProcess, decode, encode

_TTL = timedelta(seconds=60)  # four times the interval at which heartbeats are written
_SWEPT_TTL = timedelta(days=1)
_MOST = 1000  # processes that are read
_LONGEST_NAME = 300  # bytes

# The times in the index are those of Redis. Members with other times were not written by this script.
_PUT = """
if redis.call('TYPE', KEYS[2]).ok ~= 'zset' then redis.call('DEL', KEYS[2]) end
local now = tonumber(redis.call('TIME')[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZADD', KEYS[2], now, ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], now + 1, '+inf')
redis.call('PEXPIRE', KEYS[2], ARGV[2])
"""
_PUT_SHA = sha1(_PUT.encode(), usedforsecurity=False).hexdigest()


class HeartbeatStore:
    """Thread-safe. Every method raises Unavailable while Redis is unavailable."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    @raises_unavailable
    def put(self, heartbeat: Heartbeat) -> None:
        """Store a heartbeat for a minute."""
        name = _name(heartbeat)
        keys = self._redis.names
        arguments: list[Any] = [keys.process(name), keys.processes, encode(heartbeat), _milliseconds(_TTL), name]
        try:
            self._redis.evalsha(_PUT_SHA, 2, *arguments)
        except NoScriptError:
            self._redis.script_load(_PUT)
            self._redis.evalsha(_PUT_SHA, 2, *arguments)

    @raises_unavailable
    def remove(self, heartbeat: Heartbeat) -> None:
        """Remove the heartbeat of a process that ends."""
        name = _name(heartbeat)
        self._redis.delete(self._redis.names.process(name))
        self._redis.zrem(self._redis.names.processes, name)

    @raises_unavailable
    def live(self) -> list[LiveProcess]:
        """All processes that have written a heartbeat within a minute, a thousand at most, in order of their names."""
        names = [name for name in self._names() if len(name) <= _LONGEST_NAME]
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.time()
            for name in names:
                key = self._redis.names.process("").encode() + name
                pipeline.getrange(key, 0, LONGEST)
                pipeline.pttl(key)
            (seconds, microseconds), *found = pipeline.execute(raise_on_error=False)
        now = datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)
        processes = (_live(value, left, now) for value, left in zip(found[::2], found[1::2], strict=True))
        return sorted(filter(None, processes), key=lambda process: process.heartbeat.name)

    @raises_unavailable
    def note_sweep(self) -> None:
        """A sweep has ended now."""
        self._redis.set(self._redis.names.swept, b"", px=_milliseconds(_SWEPT_TTL))

    @raises_unavailable
    def since_sweep(self) -> timedelta | None:
        """The time since the last sweep, by the clock of Redis; None if it is longer than a day."""
        left = self._redis.pttl(self._redis.names.swept)
        return _age(left, _SWEPT_TTL)

    def _names(self) -> list[bytes]:
        """Those of the newest heartbeats."""
        try:
            return cast("list[bytes]", self._redis.zrevrange(self._redis.names.processes, 0, _MOST - 1))
        except ResponseError:  # another program's value; the next heartbeat deletes it
            return []


def _name(heartbeat: Heartbeat) -> str:
    return f"{heartbeat.role}:{heartbeat.host}:{heartbeat.pid}"


def _live(value: object, left: object, now: datetime) -> LiveProcess | None:
    heartbeat = decode(value) if isinstance(value, bytes) else None
    age = _age(left, _TTL) if isinstance(left, int) else None
    if heartbeat is None or age is None:
        return None
    return LiveProcess(heartbeat=heartbeat, age=age, skew=heartbeat.at - (now - age))


def _age(left: int, ttl: timedelta) -> timedelta | None:
    """How long ago a key was written that now has ``left`` milliseconds to live; None if it was not written so."""
    age = ttl - timedelta(milliseconds=left)
    return age if left >= 0 and age >= timedelta(0) else None


def _milliseconds(span: timedelta) -> int:
    return int(span.total_seconds() * 1000)
