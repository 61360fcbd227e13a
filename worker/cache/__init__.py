"""Redis: copies of Postgres, results that wait for Postgres, and limits that workers share. Opens no sealed value."""

from worker.cache.connection import RedisClient, connect, server_time
from worker.cache.fleet import FleetMarker
from worker.cache.heartbeats import HeartbeatStore
from worker.cache.keys import Keys
from worker.cache.limits import RateLimiter, TenantThrottle
from worker.cache.queues import QueueLengths
from worker.cache.stores import LONGEST_RESULT, Cache, OutboxStore, RequestDedup, SealedEntry

__all__ = [
    "LONGEST_RESULT",
    "Cache",
    "FleetMarker",
    "HeartbeatStore",
    "Keys",
    "OutboxStore",
    "QueueLengths",
    "RateLimiter",
    "RedisClient",
    "RequestDedup",
    "SealedEntry",
    "TenantThrottle",
    "connect",
    "server_time",
]
