"""Entries that this process has read from Redis or written there within the last seconds."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from worker.domain.account import AccountId
from worker.domain.token import CacheEntry

_MAX_ENTRIES = 1000  # about 10 MB with Microsoft's tokens
_TTL = timedelta(seconds=10)  # until this process notices what another one has changed


class LocalCache:
    """Opened entries; the least recently used one goes first. Thread-safe.

    The caller judges whether an entry will do, just as if it came from Redis.
    """

    def __init__(
        self, *, utcnow: Callable[[], datetime], max_entries: int = _MAX_ENTRIES, ttl: timedelta = _TTL
    ) -> None:
        self._utcnow = utcnow
        self._max_entries = max_entries
        self._ttl = ttl
        self._entries: OrderedDict[AccountId, tuple[CacheEntry, datetime]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, account: AccountId) -> CacheEntry | None:
        """The account's entry, unless it was stored too long ago."""
        now = self._utcnow()
        with self._lock:
            entry = self._young(account, now)
            if entry is not None:
                self._entries.move_to_end(account)
            return entry

    def put(self, entries: Iterable[CacheEntry]) -> None:
        """Store entries, each unless a newer one is there: a slow reader must not undo what was written meanwhile."""
        now = self._utcnow()
        with self._lock:
            for entry in entries:
                present = self._young(entry.account_id, now)
                if present is None or present.version <= entry.version:
                    self._entries[entry.account_id] = (entry, now)
                    self._entries.move_to_end(entry.account_id)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)

    def _young(self, account: AccountId, now: datetime) -> CacheEntry | None:
        found = self._entries.get(account)
        if found is None:
            return None
        entry, since = found
        return entry if since <= now < since + self._ttl else None  # a clock may also be set back
