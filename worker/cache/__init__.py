"""Redis: copies of Postgres, results that wait for Postgres, and limits that workers share. Opens no sealed value."""

from worker.cache.heartbeats import HeartbeatStore
from worker.cache.limits import RateLimiter, TenantThrottle
from worker.cache.stores import Cache, OutboxStore, RequestDedup, SealedEntry, connect, server_time

__all__ = [
    "Cache",
    "HeartbeatStore",
    "OutboxStore",
    "RateLimiter",
    "RequestDedup",
    "SealedEntry",
    "TenantThrottle",
    "connect",
    "server_time",
]
