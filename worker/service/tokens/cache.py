"""The token cache: entries in Redis and in this process. Without Redis a read is a miss, never a failure."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import structlog

from worker.cache import Cache, SealedEntry
from worker.domain.account import AccountId
from worker.domain.cache_entry import CacheEntry, decode, encode
from worker.domain.errors import DatabaseUnavailable, Unavailable, UnreadableSecret
from worker.service.accounts.reader import AccountReader
from worker.vault import Purpose, Vault

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


log = structlog.get_logger(__name__)


class TokenCache:
    """Reads and writes cache entries. Thread-safe.

    Writing comes after the commit. A write that fails is not repeated: the next reader finds a miss or an old entry,
    and reads Postgres as soon as the old token will not do.

    ``accounts`` reads the versions in Postgres, if that is the primary: a replica may be behind the cache.

    With a ``local`` cache, what was read or written is at hand for some seconds: ``recall`` looks there and nowhere
    else, ``read`` always goes to Redis.
    """

    def __init__(
        self,
        cache: Cache,
        vault: Vault,
        *,
        accounts: AccountReader | None = None,
        local: LocalCache | None = None,
    ) -> None:
        self._cache = cache
        self._vault = vault
        self._accounts = accounts
        self._local = local
        self._is_unavailable = False

    def recall(self, account: AccountId) -> CacheEntry | None:
        """The account's entry from this process, or None."""
        return self._local.get(account) if self._local else None

    def read(self, account: AccountId) -> CacheEntry | None:
        """The account's entry from Redis, or None if there is none that opens."""
        try:
            sealed = self._cache.get(account)
        except Unavailable as error:
            self._log_unavailable(error)
            return None
        if self._is_unavailable:
            self._log_available()
        entry = self._open(account, sealed) if sealed else None
        if entry and self._local:
            self._local.put((entry,))
        return entry

    def read_many(self, accounts: Sequence[AccountId]) -> dict[AccountId, CacheEntry]:
        """Those of the accounts that have an entry that opens, in one round trip."""
        try:
            sealed = self._cache.get_many(accounts) if accounts else {}
        except Unavailable as error:
            self._log_unavailable(error)
            return {}
        self._log_available()
        found = {account: entry for account, each in sealed.items() if (entry := self._open(account, each))}
        self.remember(list(found.values()))
        return found

    def publish(self, entries: Sequence[CacheEntry]) -> bool:
        """Write entries, each unless a newer one is there; False if Redis could not take them."""
        if not entries:
            return True
        self.remember(entries)
        try:
            sealed = {entry.account_id: self._seal(entry) for entry in entries}
            if newer := self._cache.put(sealed):
                self._replace_foreign(sealed, newer)
        except Unavailable as error:
            self._log_unavailable(error)
            return False
        self._log_available()
        return True

    def _replace_foreign(self, sealed: Mapping[AccountId, SealedEntry], newer: Mapping[AccountId, int]) -> None:
        """Write the entries in the place of those that claim a version which no row has: no worker wrote them.

        A pending result is a version ahead of its row, too. Its token is lost to the cache then, and comes back as soon
        as the older one does not satisfy. Raises Unavailable without Redis.
        """
        if self._accounts is None:
            return
        try:
            versions = self._accounts.versions(list(newer))
        except DatabaseUnavailable:  # the next publish will find out
            return
        foreign = {account: version for account, version in newer.items() if version > versions.get(account, 0)}
        if foreign:
            self._cache.put({account: sealed[account] for account in foreign}, over=foreign)
            log.warning("Cache entries replaced: their versions are higher than those stored", accounts=len(foreign))

    def delete(self, accounts: Sequence[AccountId]) -> None:
        """Delete the entries of accounts that are no more from Redis. Raises Unavailable."""
        self._cache.delete(accounts)

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

    def _open(self, account: AccountId, sealed: SealedEntry) -> CacheEntry | None:
        version, value = sealed
        try:
            entry = decode(self._vault.open(value, account, Purpose.CACHE_ENTRY), account)
        except UnreadableSecret as error:
            log.warning("Cache entry cannot be opened", account_id=str(account), reason=str(error))
            return None
        # Redis compares the version in front. One that was tampered with must not make an old entry look new.
        return entry if entry.version == version else None

    def _seal(self, entry: CacheEntry) -> SealedEntry:
        return entry.version, self._vault.seal(encode(entry), entry.account_id, Purpose.CACHE_ENTRY)
