"""Refresh on demand: the last step of a read, for an account without a token that satisfies."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from worker.domain.account import REFRESHABLE, Account, AccountId
from worker.domain.cache_entry import CachedFailure, CacheEntry
from worker.domain.cached_failure import applies, as_error, rejected, unknown
from worker.domain.errors import (
    AccountError,
    AccountInactive,
    DatabaseUnavailable,
    Unavailable,
    UnreadableSecret,
    WorkerError,
)
from worker.domain.policy import RefreshPolicy
from worker.domain.token import AccessToken, TokenRequirement
from worker.service.accounts.reader import AccountReader
from worker.service.refresh.refresher import Refresher
from worker.service.refresh.results import Trigger
from worker.service.tokens.cache import TokenCache

# Seconds. The limit is longer than the longest request to Microsoft.
_FIRST_PAUSE, _PAUSE_CAP, _LIMIT = 0.02, 0.5, 45.0


def poll(limit: float = _LIMIT) -> Iterator[None]:
    """Come back at once, then at growing intervals of up to half a second, for ``limit`` seconds of pauses."""
    pause, waited = _FIRST_PAUSE, 0.0  # pauses are added up: a test's clock may stand still
    while waited < limit:
        yield
        time.sleep(pause)
        waited += pause
        pause = min(pause * 1.5, _PAUSE_CAP)


@dataclass(frozen=True, slots=True)
class Lookup:
    """The result of a look-up.

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


# A token this young that is rejected was not rejected for its age: the next one would be rejected, too.
_REJECTION_INTERVAL = timedelta(minutes=10)


class OnDemandRefresh(Protocol):
    """One way to a better token."""

    def refresh(self, account: AccountId, email: str, requirement: TokenRequirement, lookup: Lookup) -> Lookup:
        """Do what can be done for an account, given what the stores have of it."""
        ...


class DirectRefresh:
    """Refreshes in this process, under the lease in Postgres. Thread-safe."""

    def __init__(
        self,
        *,
        accounts: AccountReader,
        stored: StoredAccounts,
        cache: TokenCache,
        refresher: Refresher,
        policy: RefreshPolicy,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._accounts = accounts
        self._stored = stored
        self._cache = cache
        self._refresher = refresher
        self._policy = policy
        self._utcnow = utcnow

    def refresh(self, account: AccountId, email: str, requirement: TokenRequirement, lookup: Lookup) -> Lookup:
        """Refresh, or wait until another process has: then its result is in the row."""
        for _attempt in poll():
            if (
                lookup.error
                or lookup.entry is None
                or lookup.stored is None
                or self._is_conclusive(lookup, requirement)
            ):
                return lookup
            if failure := self._rejected_again(lookup.entry, requirement):
                return self._failed(lookup.entry, failure)
            if not lookup.stored.is_leased(self._utcnow()):
                try:
                    if entry := self._refresher.refresh_one(lookup.stored, _trigger(lookup.stored, requirement)):
                        return Lookup(entry)
                except (AccountError, UnreadableSecret) as error:
                    return replace(lookup, error=error)
            elif requirement.accepts(lookup.entry.token, now=self._utcnow()):
                return lookup  # it lives, and another process is replacing it: nothing to wait for
            lookup = self._stored.find({account: lookup.entry}, requirement)[account]
        return replace(lookup, error=Unavailable(f"{email}: the refresh by another worker has not finished"))

    def refresh_now(self, account: AccountId) -> AccessToken:
        """Refresh against schedule and earlier failures, because an operator requests it.

        Raises as TokenReader.get does, even if an older token lives.
        """
        known = self._accounts.find(account, str(account))
        _check_active(known)
        for _attempt in poll():
            stored = self._accounts.find(known.id, known.email)
            if stored.version != known.version:
                return self._new_token(self._accounts.entry(stored))
            is_free = not stored.is_leased(self._utcnow())
            if is_free and (entry := self._refresher.refresh_one(stored, Trigger.OPERATOR)):
                return self._new_token(entry)
        raise Unavailable(f"{known.email}: another worker holds this account; try again in a minute")

    def _is_conclusive(self, lookup: Lookup, requirement: TokenRequirement) -> bool:
        return lookup.entry is not None and self._policy.is_conclusive(lookup.entry, requirement, now=self._utcnow())

    def _failed(self, entry: CacheEntry, failure: CachedFailure) -> Lookup:
        failed = entry.with_failure(failure)
        self._cache.publish([failed])
        return Lookup(failed)

    def _rejected_again(self, entry: CacheEntry, requirement: TokenRequirement) -> CachedFailure | None:
        """The failure, if the rejected token was itself issued because of an earlier rejection."""
        if requirement.newer_than is None or entry.token is None or requirement.is_newer(entry.token):
            return None
        last = self._accounts.last_granted(entry.account_id, Trigger.REJECTED.value, within=_REJECTION_INTERVAL)
        # The ledger is read after the row: a grant in between has brought a token that no server has rejected yet.
        if last is None or self._accounts.find(entry.account_id, entry.email).version != entry.version:
            return None
        return rejected(until=last + _REJECTION_INTERVAL, now=self._utcnow())

    def _new_token(self, entry: CacheEntry) -> AccessToken:
        if entry.failure is None and entry.token is not None:
            return entry.token
        raise as_error(entry, entry.email, now=self._utcnow())


def _check_active(account: Account) -> None:
    if account.status not in REFRESHABLE or not account.use_oauth:
        state = account.status.value if account.use_oauth else "not using OAuth"
        raise AccountInactive(account.email, state)


def _trigger(stored: Account, requirement: TokenRequirement) -> Trigger:
    is_rejected = requirement.newer_than is not None and stored.version <= requirement.newer_than
    return Trigger.REJECTED if is_rejected else Trigger.CONSUMER
