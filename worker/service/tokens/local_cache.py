"""What this process has just read from Redis or written there, for the next who asks within seconds."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from worker.domain.account import AccountId
from worker.domain.token import CacheEntry

_MOST = 1000  # entries; about 10 MB with Microsoft's tokens
_LONGEST = timedelta(seconds=10)  # until this process notices what another has done


class Memory:
    """Opened entries, the least recently used given up first. Thread-safe.

    Whether an entry will do is for whoever recalls it to judge, just as if it came from Redis.
    """

    def __init__(self, *, utcnow: Callable[[], datetime], most: int = _MOST, longest: timedelta = _LONGEST) -> None:
        self._utcnow = utcnow
        self._most = most
        self._longest = longest
        self._kept: OrderedDict[AccountId, tuple[CacheEntry, datetime]] = OrderedDict()
        self._lock = threading.Lock()

    def recall(self, account: AccountId) -> CacheEntry | None:
        """The account's entry, unless it was kept too long ago."""
        now = self._utcnow()
        with self._lock:
            entry = self._young(account, now)
            if entry is not None:
                self._kept.move_to_end(account)
            return entry

    def keep(self, entries: Iterable[CacheEntry]) -> None:
        """Keep entries, each unless a newer one is there: a slow reader must not undo what was written meanwhile."""
        now = self._utcnow()
        with self._lock:
            for entry in entries:
                kept = self._young(entry.account_id, now)
                if kept is None or kept.version <= entry.version:
                    self._kept[entry.account_id] = (entry, now)
                    self._kept.move_to_end(entry.account_id)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def _young(self, account: AccountId, now: datetime) -> CacheEntry | None:
        kept = self._kept.get(account)
        if kept is None:
            return None
        entry, since = kept
        return entry if since <= now < since + self._longest else None  # a clock may also be set back
