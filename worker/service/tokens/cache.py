"""The token cache: entries in Redis and in this process. Without Redis a read is a miss, never a failure."""

from collections.abc import Sequence

import structlog

from worker.cache import Cache, Item
from worker.domain import cache_entry as codec
from worker.domain.account import AccountId
from worker.domain.errors import Unavailable, UnreadableSecret
from worker.domain.token import CacheEntry
from worker.service.tokens.local_cache import LocalCache
from worker.vault import Purpose, Vault

log = structlog.get_logger(__name__)


class TokenCache:
    """Reads and writes cache entries. Thread-safe.

    Writing comes after the commit. A write that fails is not repeated: the next reader finds a miss or an old entry,
    and reads Postgres as soon as the old token will not do.

    With a ``local`` cache, what was read or written is at hand for some seconds: ``recall`` looks there and nowhere
    else, ``read`` always goes to Redis.
    """

    def __init__(self, cache: Cache, vault: Vault, *, local: LocalCache | None = None) -> None:
        self._cache = cache
        self._vault = vault
        self._local = local
        self._is_unavailable = False

    def recall(self, account: AccountId) -> CacheEntry | None:
        """The account's entry from this process, or None."""
        return self._local.get(account) if self._local else None

    def read(self, account: AccountId) -> CacheEntry | None:
        """The account's entry from Redis, or None if there is none that opens."""
        try:
            item = self._cache.get(account)
        except Unavailable as error:
            self._log_unavailable(error)
            return None
        if self._is_unavailable:
            self._log_available()
        entry = self._open(item) if item else None
        if entry and self._local:
            self._local.put((entry,))
        return entry

    def read_many(self, accounts: Sequence[AccountId]) -> dict[AccountId, CacheEntry]:
        """Those of the accounts that have an entry that opens, in one round trip."""
        try:
            items = self._cache.get_many(accounts) if accounts else {}
        except Unavailable as error:
            self._log_unavailable(error)
            return {}
        self._log_available()
        found = {account: entry for account, item in items.items() if (entry := self._open(item))}
        self.remember(list(found.values()))
        return found

    def publish(self, entries: Sequence[CacheEntry]) -> bool:
        """Write entries, each unless a newer one is there; False if Redis could not take them."""
        if not entries:
            return True
        self.remember(entries)
        try:
            self._cache.put([self._seal(entry) for entry in entries])
        except Unavailable as error:
            self._log_unavailable(error)
            return False
        self._log_available()
        return True

    def recover(self, entries: Sequence[CacheEntry]) -> None:
        """Write what Postgres had and Redis had not."""
        if self.publish(entries):
            for entry in entries:
                log.info("Recovered credentials from database and cached in Redis", email=entry.email)

    def remember(self, entries: Sequence[CacheEntry]) -> None:
        """Put entries into this process's cache alone."""
        if self._local and entries:
            self._local.put(entries)

    def _log_unavailable(self, error: Unavailable) -> None:
        """Once: readers may come a thousand times a second."""
        if not self._is_unavailable:
            self._is_unavailable = True
            log.warning("Cache cannot be used", reason=str(error))

    def _log_available(self) -> None:
        if self._is_unavailable:
            self._is_unavailable = False
            log.info("Cache can be used again")

    def _open(self, item: Item) -> CacheEntry | None:
        try:
            text = self._vault.open(item.sealed, item.account_id, Purpose.CACHE_ENTRY)
            entry = codec.decode(text, item.account_id)
        except UnreadableSecret as error:
            log.warning("Cache entry cannot be opened", account_id=str(item.account_id), reason=str(error))
            return None
        # Redis compares the version in front. One that was tampered with must not make an old entry look new.
        return entry if entry.version == item.version else None

    def _seal(self, entry: CacheEntry) -> Item:
        sealed = self._vault.seal(codec.encode(entry), entry.account_id, Purpose.CACHE_ENTRY)
        return Item(entry.account_id, entry.version, sealed)
