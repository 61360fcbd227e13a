"""Heartbeats of processes that the test pretends to have."""

from typing import Any

from worker.cache import HeartbeatStore, RedisClient
from worker.clock import utcnow
from worker.domain.heartbeat import Heartbeat, Role


def beat(redis: RedisClient, **fields: Any) -> None:
    """Write a heartbeat, by default that of a worker."""
    now = utcnow()
    given: dict[str, Any] = {"role": Role.WORKER, "host": "one", "pid": 7, "version": "1", "started_at": now, "at": now}
    HeartbeatStore(redis).put(Heartbeat(**given | fields))
