"""What Redis keeps for us: copies of what Postgres knows, and for a while what it could not be told. Opens nothing."""

from worker.cache.connection import connect
from worker.cache.entries import Cache, Item
from worker.cache.limits import Pauses, RateLimiter
from worker.cache.locks import Locks
from worker.cache.outbox import Outbox
from worker.cache.questions import Questions

__all__ = ["Cache", "Item", "Locks", "Outbox", "Pauses", "Questions", "RateLimiter", "connect"]
