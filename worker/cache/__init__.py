"""What Redis keeps for us: copies of what Postgres knows, and for a while what it could not be told. Opens nothing."""

from worker.cache.connection import connect
from worker.cache.entries import Cache, Item
from worker.cache.limits import RateLimiter, TenantThrottle
from worker.cache.locks import Locks
from worker.cache.outbox import OutboxStore
from worker.cache.requests import RequestDedup

__all__ = ["Cache", "Item", "Locks", "OutboxStore", "RateLimiter", "RequestDedup", "TenantThrottle", "connect"]
