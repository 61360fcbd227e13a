"""Redis: copies of Postgres, results that wait for Postgres, and limits that workers share. Opens no sealed value."""

from worker.cache.limits import RateLimiter, TenantThrottle
from worker.cache.stores import Cache, Item, OutboxStore, RequestDedup, connect

__all__ = ["Cache", "Item", "OutboxStore", "RateLimiter", "RequestDedup", "TenantThrottle", "connect"]
