"""The cache as services see it: opened entries. Redis being away is a miss and a warning, never a failure."""

import threading
from collections.abc import Sequence

import structlog

from worker.cache import Cache, Item
from worker.domain import entry as wire
from worker.domain.credential import AccountId, CacheEntry
from worker.domain.errors import Unavailable, UnreadableSecret
from worker.vault import Purpose, Vault

log = structlog.get_logger(__name__)


_MOST_OWED = 5_000  # items of about 4 KB


class Entries:
    """Reads and writes cache entries. Thread-safe.

    Writing comes after the commit, so a lost write costs a database read, unless Postgres is lost next: then what Redis
    has would pass for the newest. So what could not be written is kept and written before anything else is.
    """

    def __init__(self, cache: Cache, vault: Vault) -> None:
        self._cache = cache
        self._vault = vault
        self._owed: dict[AccountId, Item] = {}
        self._lock = threading.Lock()

    def read(self, account: AccountId) -> CacheEntry | None:
        """The account's entry, or None if there is none that opens."""
        try:
            self.catch_up()
            item = self._cache.get(account)
            return self._open(item) if item else None
        except Unavailable as error:
            log.warning("Cache cannot be read", account_id=str(account), reason=str(error))
        except UnreadableSecret as error:
            log.warning("Cache entry cannot be opened", account_id=str(account), reason=str(error))
        return None

    def publish(self, entries: Sequence[CacheEntry]) -> bool:
        """Write entries, each unless a newer one is there; False if Redis could not be reached."""
        if not entries:
            return True
        items = [self._seal(entry) for entry in entries]
        try:
            self.catch_up()
            self._cache.put(items)
        except Unavailable as error:
            self._owe(items)
            log.warning("Cache cannot be written", entries=len(entries), reason=str(error))
            return False
        return True

    def catch_up(self) -> None:
        """Write what could not be written before. Raises Unavailable."""
        if self._owed:
            with self._lock:
                owed = list(self._owed.values())
            self._cache.put(owed)
            with self._lock:
                for item in owed:
                    if self._owed.get(item.account_id) is item:
                        del self._owed[item.account_id]

    def _owe(self, items: Sequence[Item]) -> None:
        with self._lock:
            for item in items:
                kept = self._owed.pop(item.account_id, item)
                self._owed[item.account_id] = max(kept, item, key=lambda each: each.version)
            for account in list(self._owed)[:-_MOST_OWED]:  # the oldest: whoever reads those finds them stale
                del self._owed[account]

    def _open(self, item: Item) -> CacheEntry | None:
        text = self._vault.open(item.sealed, item.account_id, Purpose.CACHE_ENTRY)
        entry = wire.decode(text, item.account_id)
        # The version in front is what Redis compares; one that was tampered with must not hide a newer entry's age.
        return entry if entry.version == item.version else None

    def _seal(self, entry: CacheEntry) -> Item:
        sealed = self._vault.seal(wire.encode(entry), entry.account_id, Purpose.CACHE_ENTRY)
        return Item(entry.account_id, entry.version, sealed)
