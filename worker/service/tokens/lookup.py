"""What Postgres says of an account, as the cache should have it: the third step of every read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from worker.domain.account import Account, AccountId
from worker.domain.cached_failure import applies, unknown
from worker.domain.errors import DatabaseUnavailable, Unavailable, UnreadableSecret, WorkerError
from worker.domain.policy import RefreshPolicy
from worker.domain.requirement import TokenRequirement
from worker.domain.token import CacheEntry
from worker.service.accounts.reader import AccountReader
from worker.service.tokens.cache import TokenCache


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a look-up found.

    ``entry`` is None if neither store has one. ``stored`` is the row, if Postgres was read. ``error`` is what stopped
    this very look-up, unless the entry says it.
    """

    entry: CacheEntry | None
    stored: Account | None = None
    error: WorkerError | None = None


class StoredAccounts:
    """Looks accounts up in Postgres and rebuilds their cache entries. Thread-safe."""

    def __init__(
        self,
        *,
        accounts: AccountReader,
        cache: TokenCache,
        policy: RefreshPolicy,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._accounts = accounts
        self._cache = cache
        self._policy = policy
        self._utcnow = utcnow

    def find(
        self, wanted: Mapping[AccountId, CacheEntry | None], requirement: TokenRequirement
    ) -> dict[AccountId, Lookup]:
        """Look accounts up, with what the cache has of each. An entry that ends the look-up goes into the cache.

        While Postgres is unavailable, the look-ups carry the cached entries and the error.
        """
        try:
            stored = self._accounts.find_many(list(wanted))
        except DatabaseUnavailable as error:
            return {account: self._cached(entry, requirement, error) for account, entry in wanted.items()}
        lookups = {account: self._lookup(account, stored.get(account)) for account in wanted}
        self._rebuild(lookups, requirement)
        return lookups

    def _cached(self, entry: CacheEntry | None, requirement: TokenRequirement, error: DatabaseUnavailable) -> Lookup:
        """An older failure is still the best answer while only Postgres could say better."""
        if entry and applies(entry.failure, requirement, now=self._utcnow()):
            return Lookup(entry)
        return Lookup(entry, error=_without_postgres(entry, error))

    def _lookup(self, account: AccountId, stored: Account | None) -> Lookup:
        if stored is None:
            return Lookup(unknown(account, now=self._utcnow()))
        try:
            return Lookup(self._accounts.entry(stored), stored)
        except UnreadableSecret as error:
            return Lookup(None, stored, error)

    def _rebuild(self, lookups: Mapping[AccountId, Lookup], requirement: TokenRequirement) -> None:
        now = self._utcnow()
        entries = [each.entry for each in lookups.values() if each.entry and each.stored]
        satisfying = [entry for entry in entries if self._policy.satisfies(entry.token, requirement, now=now)]
        self._cache.recover(satisfying)
        self._cache.publish([entry for entry in entries if entry.failure and entry not in satisfying])


def _without_postgres(entry: CacheEntry | None, error: DatabaseUnavailable) -> Unavailable:
    cause = "the cache has no entry for it" if entry is None else "its cached token has expired or was rejected"
    email = f"{entry.email}: " if entry else ""
    return DatabaseUnavailable(f"{email}{cause}, and {error}")
