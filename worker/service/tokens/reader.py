"""An access token for a consumer, by one ladder: process memory, Redis, Postgres, one refresh."""

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TypeAlias

from worker.domain.account import AccountId, account_id, normalize_email
from worker.domain.cache_entry import CacheEntry, MailAccount
from worker.domain.cached_failure import as_error, of_process
from worker.domain.errors import InvalidInput, Unavailable, WorkerError
from worker.domain.policy import RefreshPolicy
from worker.domain.token import AccessToken, TokenRequirement
from worker.service.tokens.cache import TokenCache
from worker.service.tokens.on_demand import Lookup, OnDemandRefresh, StoredAccounts

_PARALLEL_REFRESHES = 8  # accounts of one call; each needs a connection to Postgres at times

Flight: TypeAlias = tuple[AccountId, TokenRequirement]


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
        account, requirement = account_id(email), TokenRequirement(min_ttl=min_ttl)
        entry = None
        for find in (self._cache.recall, self._cache.read):
            entry = find(account)
            if entry is not None and self._policy.satisfies(entry.token, requirement, now=self._utcnow()):
                assert entry.token
                return entry.token  # as nearly always, and at half the cost
            if entry is not None and self._is_conclusive(entry, requirement):
                return self._token(email, Lookup(entry), requirement)
        return self._token(
            email, self._below_cache({account: email}, {account: entry}, requirement)[account], requirement
        )

    def recall(self, email: str, *, min_ttl: timedelta | None = None) -> AccessToken | None:
        """The result of ``get`` from this process's memory alone; None if a store must be read. Raises as ``get``
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
        lookup = self._read(account, str(account), requirement)
        if lookup.entry and lookup.entry.version == 0:  # unknown: the other process learns it from this entry alone
            self._cache.publish([lookup.entry])
        if lookup.entry and (failure := of_process(lookup.error, now=self._utcnow())):
            self._cache.publish([lookup.entry.with_failure(failure)])
        self._token(lookup.entry.email if lookup.entry else str(account), lookup, requirement)

    def _look_up(self, email: str, requirement: TokenRequirement) -> Lookup:
        account = account_id(email)
        entry = self._cache.recall(account)
        if entry and self._is_conclusive(entry, requirement):
            return Lookup(entry)
        return self._read(account, email, requirement)

    def _read(self, account: AccountId, email: str, requirement: TokenRequirement) -> Lookup:
        entry = self._cache.read(account)
        if entry and self._is_conclusive(entry, requirement):
            return Lookup(entry)
        return self._below_cache({account: email}, {account: entry}, requirement)[account]

    def _look_up_many(self, wanted: Mapping[AccountId, str], requirement: TokenRequirement) -> dict[AccountId, Lookup]:
        entries = {account: self._cache.recall(account) for account in wanted}
        found = self._conclusive(entries, requirement)
        entries |= self._cache.read_many([account for account in wanted if account not in found])
        found |= self._conclusive(entries, requirement)
        rest = {account: email for account, email in wanted.items() if account not in found}
        return found | (self._below_cache(rest, entries, requirement) if rest else {})

    def _below_cache(
        self,
        wanted: Mapping[AccountId, str],
        cached: Mapping[AccountId, CacheEntry | None],
        requirement: TokenRequirement,
    ) -> dict[AccountId, Lookup]:
        """Postgres, then a refresh of each account that still has no token that satisfies.

        Concurrent calls with the same requirement work on an account once: the first does, the others wait for it.
        """
        flights, own = self._board(wanted, requirement)
        try:
            lookups = self._stored_lookups({account: cached.get(account) for account in own}, requirement)
            stale = [account for account in own if not self._is_final(lookups[account], requirement)]
            if len(stale) == 1:
                lookups[stale[0]] = self._refresh(stale[0], wanted[stale[0]], requirement, lookups[stale[0]])
            elif stale:
                with ThreadPoolExecutor(_PARALLEL_REFRESHES, thread_name_prefix="tokens") as pool:
                    tasks = {
                        account: pool.submit(self._refresh, account, wanted[account], requirement, lookups[account])
                        for account in stale
                    }
                lookups |= {account: task.result() for account, task in tasks.items()}
            for account in own:
                flights[account].set_result(lookups[account])
        except BaseException as error:
            for account in own:
                flights[account].set_exception(error)
            raise
        finally:
            with self._lock:
                for account in own:
                    del self._flights[account, requirement]
        return {account: flight.result() for account, flight in flights.items()}

    def _board(
        self, accounts: Iterable[AccountId], requirement: TokenRequirement
    ) -> tuple[dict[AccountId, Future[Lookup]], list[AccountId]]:
        """The look-up under way for each account, and the accounts whose look-up is this call's own to make."""
        with self._lock:
            own = [account for account in accounts if (account, requirement) not in self._flights]
            self._flights |= {(account, requirement): Future() for account in own}
            return {account: self._flights[account, requirement] for account in accounts}, own

    def _stored_lookups(
        self, cached: Mapping[AccountId, CacheEntry | None], requirement: TokenRequirement
    ) -> dict[AccountId, Lookup]:
        if self._stored and cached:
            return self._stored.find(cached, requirement)
        return {account: Lookup(entry) for account, entry in cached.items()}

    def _refresh(self, account: AccountId, email: str, requirement: TokenRequirement, lookup: Lookup) -> Lookup:
        try:
            refreshed = self._on_demand.refresh(account, email, requirement, lookup)
        except WorkerError as error:
            return Lookup(lookup.entry, lookup.stored, error)
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
