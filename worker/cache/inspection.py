"""Trials of the doctor in Redis: the state of the server, and the commands of the cache. The trials leave no key."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from uuid import uuid4

from redis.exceptions import NoPermissionError, ResponseError

from worker.cache.connection import RedisClient, raises_unavailable

_TTL = 60_000  # milliseconds, should the removal fail


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisServer:
    """The state of a server."""

    is_cluster: bool
    is_replica: bool
    eviction_policy: str
    memory: int  # bytes in use
    memory_limit: int  # bytes, 0 without one
    is_persistent: bool
    last_write_failed: bool  # of the append-only file or the snapshot: its disk is full, or not writable


@raises_unavailable
def server(redis: RedisClient) -> RedisServer | None:
    """None if the user lacks the right to see it. Raises Unavailable."""
    try:
        info = cast("Mapping[str, Any]", redis.info())
    except NoPermissionError:
        return None
    return RedisServer(
        is_cluster=bool(info.get("cluster_enabled")),
        is_replica=info.get("role") == "slave",
        eviction_policy=str(info.get("maxmemory_policy", "noeviction")),
        memory=int(info.get("used_memory", 0)),
        memory_limit=int(info.get("maxmemory", 0)),
        is_persistent=bool(info.get("aof_enabled")) or _makes_snapshots(redis),
        last_write_failed="err" in {info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status")},
    )


def _makes_snapshots(redis: RedisClient) -> bool:
    try:
        found = cast("Mapping[str, str]", redis.config_get("save"))
    except ResponseError:
        return True  # perhaps: the user lacks the right, or a managed server has no such command
    return bool(found.get("save"))


#: The commands that the cache needs, each with a name for people. Each raises Unavailable.
def trials(redis: RedisClient) -> dict[str, Callable[[], None]]:
    key = redis.names.trial(str(uuid4()))
    return {
        "write": lambda: _write(redis, key),
        "read": lambda: _read(redis, key),
        "run scripts": lambda: _run_script(redis, key),
        "delete": lambda: _delete(redis, key),
    }


@raises_unavailable
def _write(redis: RedisClient, key: str) -> None:
    redis.set(key, b"x", px=_TTL)
    redis.hset(f"{key}:hash", mapping={"field": b"x"})
    redis.pexpire(f"{key}:hash", _TTL)


@raises_unavailable
def _read(redis: RedisClient, key: str) -> None:
    redis.mget([key])
    redis.hscan(f"{key}:hash")


@raises_unavailable
def _run_script(redis: RedisClient, key: str) -> None:
    redis.eval("return redis.call('GET', KEYS[1])", 1, key)


@raises_unavailable
def _delete(redis: RedisClient, key: str) -> None:
    redis.delete(key, f"{key}:hash")
