"""The cache as services see it: opened entries. Redis being away is a miss and a warning, never a failure."""

import threading
from collections.abc import Sequence
from itertools import islice

import structlog

from worker.cache import Cache, Item
from worker.domain import cache_entry as wire
from worker.domain.account import AccountId
from worker.domain.errors import CacheRefused, Unavailable, UnreadableSecret
from worker.domain.token import CacheEntry
from worker.service.tokens.local_cache import Memory
from worker.vault import Purpose, Vault

log = structlog.get_logger(__name__)


_MOST_OWED = 5_000  # items of about 4 KB
_AT_A_TIME = 250


class TokenCache:
    """Reads and writes cache entries. Thread-safe.

    Writing comes after the commit, so a lost write costs a database read, unless Postgres is lost next: then what Redis
    has would pass for the newest. So what could not be written is kept and written before anything else is.

    With a ``memory``, what was read or written is at hand for a few seconds: ``recall`` looks there and nowhere else,
    ``read`` always goes to Redis.
    """

    def __init__(self, cache: Cache, vault: Vault, *, memory: Memory | None = None) -> None:
        self._cache = cache
        self._vault = vault
        self._memory = memory
        self._owed: dict[AccountId, Item] = {}
        self._lock = threading.Lock()
        self._is_away = False

    def recall(self, account: AccountId) -> CacheEntry | None:
        """The account's entry from memory, or None."""
        return self._memory.recall(account) if self._memory else None

    def read(self, account: AccountId) -> CacheEntry | None:
        """The account's entry, or None if there is none that opens."""
        try:
            takes_all = self._is_told()
            item = self._newer(account, self._cache.get(account))
        except Unavailable as error:
            self._lost(error)
            return None
        if takes_all:
            self._found()
        entry = self._open(item) if item else None
        self.keep([entry] if entry else [])
        return entry

    def read_many(self, accounts: Sequence[AccountId]) -> dict[AccountId, CacheEntry]:
        """Those of the accounts that have an entry that opens, in one round trip."""
        try:
            takes_all = self._is_told()
            cached = self._cache.get_many(accounts) if accounts else {}
        except Unavailable as error:
            self._lost(error)
            return {}
        if takes_all:
            self._found()
        items = (self._newer(account, cached.get(account)) for account in accounts)
        found = {item.account_id: entry for item in items if item and (entry := self._open(item))}
        self.keep(list(found.values()))
        return found

    def publish(self, entries: Sequence[CacheEntry]) -> bool:
        """Write entries, each unless a newer one is there; False if Redis could not be reached."""
        if not entries:
            return True
        self.keep(entries)
        items = [self._seal(entry) for entry in entries]
        try:
            self.catch_up()
            self._cache.put(items)
        except Unavailable as error:
            self._owe(items)
            self._lost(error)
            return False
        self._found()
        return True

    def recover(self, entries: Sequence[CacheEntry]) -> None:
        """Write what Postgres had and the cache had not."""
        if self.publish(entries):
            for entry in entries:
                log.info("Recovered credentials from database and cached in Redis", email=entry.email)

    def keep(self, entries: Sequence[CacheEntry]) -> None:
        """Remember entries in this process alone."""
        if self._memory and entries:
            self._memory.keep(entries)

    def catch_up(self) -> None:
        """Write what could not be written before. Raises Unavailable."""
        number = 1  # at first: readers come through here, and Redis may still refuse
        while self._owed:
            with self._lock:
                some = list(islice(self._owed.values(), number))
            self._cache.put(some)
            number = _AT_A_TIME
            with self._lock:
                for item in some:
                    if self._owed.get(item.account_id) is item:
                        del self._owed[item.account_id]

    def _is_told(self) -> bool:
        """Catch up; False if Redis takes nothing more, but may well be read. Raises Unavailable if it is away."""
        try:
            self.catch_up()
        except CacheRefused as error:
            self._lost(error)
            return False
        return True

    def _newer(self, account: AccountId, cached: Item | None) -> Item | None:
        """What Redis has, or would have if it had taken what it is owed."""
        owed = self._owed.get(account)
        return owed if owed and (cached is None or owed.version >= cached.version) else cached

    def _owe(self, items: Sequence[Item]) -> None:
        with self._lock:
            for item in items:
                kept = self._owed.pop(item.account_id, item)
                self._owed[item.account_id] = item if item.version >= kept.version else kept
            for account in list(self._owed)[:-_MOST_OWED]:  # the oldest: whoever reads those finds them stale
                del self._owed[account]

    def _lost(self, error: Unavailable) -> None:
        """Told once: readers may ask a thousand times a second."""
        if not self._is_away:
            self._is_away = True
            log.warning("Cache cannot be used", reason=str(error))

    def _found(self) -> None:
        if self._is_away:
            self._is_away = False
            log.info("Cache can be used again")

    def _open(self, item: Item) -> CacheEntry | None:
        try:
            text = self._vault.open(item.sealed, item.account_id, Purpose.CACHE_ENTRY)
            entry = wire.decode(text, item.account_id)
        except UnreadableSecret as error:
            log.warning("Cache entry cannot be opened", account_id=str(item.account_id), reason=str(error))
            return None
        # The version in front is what Redis compares; one that was tampered with must not hide a newer entry's age.
        return entry if entry.version == item.version else None

    def _seal(self, entry: CacheEntry) -> Item:
        sealed = self._vault.seal(wire.encode(entry), entry.account_id, Purpose.CACHE_ENTRY)
        return Item(entry.account_id, entry.version, sealed)
