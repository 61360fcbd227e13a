"""An access token for a consumer, by one ladder: process memory, Redis, Postgres, one refresh."""

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TypeAlias

from worker.domain.account import AccountId, account_id, normalize_email
from worker.domain.cached_failure import as_error, of_process
from worker.domain.errors import InvalidInput, Unavailable, WorkerError
from worker.domain.policy import RefreshPolicy
from worker.domain.requirement import TokenRequirement
from worker.domain.token import AccessToken, CacheEntry, MailAccount
from worker.service.tokens.cache import TokenCache
from worker.service.tokens.lookup import Lookup, StoredAccounts
from worker.service.tokens.on_demand import OnDemandRefresh

_PARALLEL_REFRESHES = 8  # accounts of one call; each needs a connection to Postgres at times

Flight: TypeAlias = tuple[str, AccountId, TokenRequirement]


class TokenReader:
    """Serves access tokens to consumers. Thread-safe.

    Every read takes the same steps and ends at the first that is conclusive: process memory, Redis, Postgres (which
    rebuilds the entry), one refresh for all concurrent requests. ``stored`` is None for a consumer without Postgres.
    """

    def __init__(
        self,
        *,
        cache: TokenCache,
        stored: StoredAccounts | None,
        on_demand: OnDemandRefresh,
        policy: RefreshPolicy,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._cache = cache
        self._stored = stored
        self._on_demand = on_demand
        self._policy = policy
        self._utcnow = utcnow
        self._flights: dict[Flight, Future[Lookup]] = {}
        self._lock = threading.Lock()

    def get(self, email: str, *, min_ttl: timedelta | None = None) -> AccessToken:
        """A token that lives for ``min_ttl`` more, if any can be had; else one that lives, while refreshes fail.

        Raises UnknownAccount, NeedsUser, BlockedByAdmin, BackingOff, AccountInactive, ClientMisconfigured,
        UnreadableSecret or Unavailable; InvalidInput if this is no e-mail address.
        """
        if (token := self.recall(email, min_ttl=min_ttl)) is not None:
            return token
        requirement = TokenRequirement(min_ttl=min_ttl)
        return self._token(email, self._look_up_id(account_id(email), email, requirement), requirement)

    def recall(self, email: str, *, min_ttl: timedelta | None = None) -> AccessToken | None:
        """What ``get`` would return, from this process's memory alone; None if a store must be read. Raises as ``get``
        does."""
        entry = self._cache.recall(account_id(email))
        if entry is None:
            return None
        requirement = TokenRequirement(min_ttl=min_ttl)
        if self._policy.satisfies(entry.token, requirement, now=self._utcnow()):
            return entry.token  # as nearly always, and at half the cost
        return self._token(email, Lookup(entry), requirement) if self._is_conclusive(entry, requirement) else None

    def get_many(
        self, emails: Iterable[str], *, min_ttl: timedelta | None = None
    ) -> dict[str, AccessToken | WorkerError]:
        """``get`` for many: one round trip to Redis, one query for what it has not, and then refreshes in parallel.

        An account's error is its value.
        """
        requirement = TokenRequirement(min_ttl=min_ttl)
        results, wanted = dict[str, AccessToken | WorkerError](), dict[str, AccountId]()
        for email in emails:
            try:
                wanted[email] = account_id(email)
            except InvalidInput as error:
                results[email] = error
        lookups = self._look_up_many(
            {account: normalize_email(email) for email, account in wanted.items()}, requirement
        )
        for email, account in wanted.items():
            try:
                results[email] = self._token(email, lookups[account], requirement)
            except WorkerError as error:
                results[email] = error
        return results

    def report_rejected(self, email: str, version: int) -> AccessToken:
        """Another token than the one of this version, which a mail server has rejected.

        If a newer one is stored, Microsoft is not asked; otherwise one refresh serves all that report it. Raises as
        ``get`` does, and TokenRefused if the rejected token was itself issued because of a rejection, not long ago.
        """
        requirement = TokenRequirement(newer_than=version)
        return self._token(email, self._look_up(email, requirement), requirement)

    def load(self, email: str, *, min_ttl: timedelta | None = None) -> MailAccount:
        """All that a mail client needs to log in. Raises as ``get`` does, unless the account uses no OAuth."""
        requirement = TokenRequirement(min_ttl=min_ttl)
        lookup = self._look_up(email, requirement)
        entry = lookup.entry
        if entry is None or entry.use_oauth:
            token = self._token(email, lookup, requirement)
            entry = lookup.entry
            assert entry
            return MailAccount(email=entry.email, servers=entry.mail, use_oauth=True, token=token)
        return MailAccount(email=entry.email, servers=entry.mail, use_oauth=False, token=None)

    def serve(self, account: AccountId, requirement: TokenRequirement) -> None:
        """Do for another process what it has requested; that process reads the result in the account's entry.

        Raises as ``get`` does.
        """
        lookup = self._look_up_id(account, str(account), requirement)
        if lookup.entry and lookup.entry.version == 0:  # unknown: only this entry tells the other process
            self._cache.publish([lookup.entry])
        if lookup.entry and (failure := of_process(lookup.error, now=self._utcnow())):
            self._cache.publish([lookup.entry.with_failure(failure)])
        self._token(lookup.entry.email if lookup.entry else str(account), lookup, requirement)

    def _look_up(self, email: str, requirement: TokenRequirement) -> Lookup:
        account = account_id(email)
        entry = self._cache.recall(account)
        if entry and self._is_conclusive(entry, requirement):
            return Lookup(entry)
        return self._look_up_id(account, email, requirement)

    def _look_up_id(self, account: AccountId, email: str, requirement: TokenRequirement) -> Lookup:
        entry = self._cache.read(account)
        if entry and self._is_conclusive(entry, requirement):
            return Lookup(entry)
        known = {account: (email, entry)}
        return self._once(("read", account, requirement), lambda: self._below_cache(known, requirement)[account])

    def _look_up_many(self, wanted: Mapping[AccountId, str], requirement: TokenRequirement) -> dict[AccountId, Lookup]:
        entries = {account: self._cache.recall(account) for account in wanted}
        found = self._conclusive(entries, requirement)
        entries |= self._cache.read_many([account for account in wanted if account not in found])
        found |= self._conclusive(entries, requirement)
        rest = {account: (email, entries.get(account)) for account, email in wanted.items() if account not in found}
        return found | (self._below_cache(rest, requirement) if rest else {})

    def _below_cache(
        self, wanted: Mapping[AccountId, tuple[str, CacheEntry | None]], requirement: TokenRequirement
    ) -> dict[AccountId, Lookup]:
        """Postgres, then a refresh of each account that still has no token that satisfies."""
        cached = {account: entry for account, (_, entry) in wanted.items()}
        if self._stored:
            lookups = self._stored.find(cached, requirement)
        else:
            lookups = {account: Lookup(entry) for account, entry in cached.items()}
        found = {account: each for account, each in lookups.items() if self._is_final(each, requirement)}
        stale = [account for account in wanted if account not in found]

        def refresh(account: AccountId) -> Lookup:
            return self._refresh(account, wanted[account][0], requirement, lookups[account])

        if len(stale) == 1:
            return found | {stale[0]: refresh(stale[0])}
        if stale:
            with ThreadPoolExecutor(_PARALLEL_REFRESHES, thread_name_prefix="tokens") as pool:
                found |= dict(zip(stale, pool.map(refresh, stale), strict=True))
        return found

    def _refresh(self, account: AccountId, email: str, requirement: TokenRequirement, lookup: Lookup) -> Lookup:
        def refresh() -> Lookup:
            try:
                return self._on_demand.refresh(account, email, requirement, lookup)
            except WorkerError as error:
                return Lookup(lookup.entry, lookup.stored, error)

        refreshed = self._once(("refresh", account, requirement), refresh)
        if refreshed.entry and (failure := of_process(refreshed.error, now=self._utcnow())):
            self._cache.remember([refreshed.entry.with_failure(failure)])  # in this process: others may fare better
        return refreshed

    def _conclusive(
        self, entries: Mapping[AccountId, CacheEntry | None], requirement: TokenRequirement
    ) -> dict[AccountId, Lookup]:
        found = entries.items()
        return {account: Lookup(entry) for account, entry in found if entry and self._is_conclusive(entry, requirement)}

    def _is_conclusive(self, entry: CacheEntry, requirement: TokenRequirement) -> bool:
        return self._policy.is_conclusive(entry, requirement, now=self._utcnow())

    def _is_final(self, lookup: Lookup, requirement: TokenRequirement) -> bool:
        return lookup.error is None and lookup.entry is not None and self._is_conclusive(lookup.entry, requirement)

    def _token(self, email: str, lookup: Lookup, requirement: TokenRequirement) -> AccessToken:
        entry, now = lookup.entry, self._utcnow()
        if entry and entry.token and requirement.accepts(entry.token, now=now):
            return entry.token
        if lookup.error:
            raise lookup.error
        if entry is None:
            raise Unavailable(f"{email}: no store has an entry for it")
        raise as_error(entry, entry.email or email, now=now)

    def _once(self, flight: Flight, work: Callable[[], Lookup]) -> Lookup:
        """Within a process, callers with the same requirement that come while one works on it get the same result."""
        with self._lock:
            future = self._flights.get(flight)
            if is_leader := future is None:
                future = self._flights[flight] = Future()
        if not is_leader:
            return future.result()
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._flights[flight]
        return future.result()
