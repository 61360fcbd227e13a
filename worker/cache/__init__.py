"""Redis: copies of Postgres, results that wait for Postgres, and limits that workers share. Opens no sealed value."""

from worker.cache.connection import connect
from worker.cache.entries import Cache, Item
from worker.cache.limits import RateLimiter, TenantThrottle
from worker.cache.outbox import OutboxStore
from worker.cache.requests import RequestDedup

__all__ = ["Cache", "Item", "OutboxStore", "RateLimiter", "RequestDedup", "TenantThrottle", "connect"]
