"""How an account comes by a better token, if the cache has none that will do: one refresh, however many ask."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from worker.domain.account import REFRESHABLE, Account, AccountId
from worker.domain.cached_failure import TokenRequirement, as_error, refused, stands
from worker.domain.errors import (
    AccountError,
    AccountInactive,
    DatabaseUnavailable,
    Unavailable,
    UnreadableSecret,
    WorkerError,
)
from worker.domain.policy import RefreshPolicy
from worker.domain.token import AccessToken, CachedFailure, CacheEntry
from worker.service.accounts.reader import AccountReader
from worker.service.bridge import Bridge
from worker.service.refresh.outbox import Outbox
from worker.service.refresh.refresher import Refresher
from worker.service.refresh.results import Trigger
from worker.service.tokens.cache import TokenCache
from worker.service.tokens.polling import looks

_REFUSALS_APART = timedelta(minutes=10)  # a token this young that is refused was refused for another reason than age


@dataclass(frozen=True, slots=True)
class Lookup:
    """An account after all that could be done for a wish.

    ``error`` is what stood in the way of this very call, unless the entry tells.
    """

    entry: CacheEntry
    error: WorkerError | None = None


class OnDemandRefresh(Protocol):
    """One way of coming by a better token."""

    def obtain(self, account: AccountId, email: str, wish: TokenRequirement, *, seen: Account | None = None) -> Lookup:
        """Do what can be done; ``seen`` is what Postgres has just told. Raises what leaves nothing to stand on:
        UnknownAccount, UnreadableSecret or Unavailable."""
        ...


class DirectRefresh:
    """Refreshes in this process, under the lease in Postgres, or over the bridge while that is away. Thread-safe."""

    def __init__(
        self,
        *,
        accounts: AccountReader,
        entries: TokenCache,
        bridge: Bridge,
        recovery: Outbox,
        refresher: Refresher,
        policy: RefreshPolicy,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._accounts = accounts
        self._entries = entries
        self._bridge = bridge
        self._recovery = recovery
        self._refresher = refresher
        self._policy = policy
        self._utcnow = utcnow

    def obtain(self, account: AccountId, email: str, wish: TokenRequirement, *, seen: Account | None = None) -> Lookup:
        try:
            return self._from_database(account, email, wish, seen)
        except DatabaseUnavailable as error:
            return self._from_cache_alone(account, wish, error)

    def _from_database(self, account: AccountId, email: str, wish: TokenRequirement, seen: Account | None) -> Lookup:
        entry = None
        for _look in looks():
            stored, seen = seen or self._accounts.find(account, email), None
            if ahead := self._from_ahead(stored, wish):
                return ahead
            entry = self._accounts.entry(stored)
            if known := self._as_stored(entry, wish):
                return known
            if not stored.is_leased(self._utcnow()):
                try:
                    if self._refresher.refresh_one(stored, _trigger(stored, wish)) is not None:
                        return self._after(stored)
                except (AccountError, UnreadableSecret) as error:
                    return Lookup(entry, error)
            elif wish.allows(entry.token, now=self._utcnow()):
                return Lookup(entry)  # it is being refreshed; no need to make anybody wait for it
        assert entry
        return Lookup(entry, Unavailable(f"{email}: the refresh by another worker has not finished"))

    def _as_stored(self, entry: CacheEntry, wish: TokenRequirement) -> Lookup | None:
        """What Postgres tells, into the cache with it; None if there is a refresh to be made."""
        if self._policy.suits(entry.token, wish, now=self._utcnow()):
            self._entries.recover([entry])
            return Lookup(entry)
        if problem := entry.problem or self._refused_again(entry, wish):
            noted = replace(entry, problem=problem)
            self._entries.publish([noted])
            return Lookup(noted)
        return None

    def refresh(self, account: AccountId) -> AccessToken:
        """Refresh now, because an operator says so: whatever the schedule and the account's failures say.

        Raises what it ends with, though an older token may live: see Tokens.ensure_fresh.
        """
        known = self._accounts.find(account, str(account))
        _refuse_inactive(known)
        for _look in looks():
            stored = self._accounts.find(known.id, known.email)
            is_free = stored.version == known.version and not stored.is_leased(self._utcnow())
            if is_free and self._refresher.refresh_one(stored, Trigger.OPERATOR) is None:
                continue
            if is_free or stored.version != known.version:
                return _new_token(self._after(stored).entry, now=self._utcnow())
        raise Unavailable(f"{known.email}: another worker holds this account; try again in a minute")

    def _after(self, asked: Account) -> Lookup:
        """How the account stands now that Microsoft has answered, whichever store could take the answer."""
        stored = self._accounts.find(asked.id, asked.email)
        return Lookup(self._ahead(stored) or self._accounts.entry(stored, asked=True))

    def _from_ahead(self, stored: Account, wish: TokenRequirement) -> Lookup | None:
        ahead = self._ahead(stored)
        if ahead is None:
            return None
        if self._policy.suits(ahead.token, wish, now=self._utcnow()):
            return Lookup(ahead)
        return self._from_entry(ahead, wish) if self._recovery.is_waiting(stored.id) else None

    def _ahead(self, stored: Account) -> CacheEntry | None:
        """The account's entry, if Postgres has not taken what it holds: that waits in the outbox, and the row may stay
        leased until it is brought home."""
        entry = self._entries.read(stored.id)
        return entry if entry and entry.version > stored.version else None

    def _from_cache_alone(self, account: AccountId, wish: TokenRequirement, error: DatabaseUnavailable) -> Lookup:
        """Postgres is away: what lives in Redis will do, and if it does not, Redis holds what it takes to get more."""
        entry = self._entries.read(account)
        if entry is None:
            raise error
        return self._from_entry(entry, wish)

    def _from_entry(self, entry: CacheEntry, wish: TokenRequirement) -> Lookup:
        now = self._utcnow()
        if self._policy.suits(entry.token, wish, now=now) or stands(entry.problem, wish, now=now):
            return Lookup(entry)
        if wish.newer_than is not None:  # whether it is refused again and again, only Postgres can tell
            return Lookup(entry, Unavailable(f"{entry.email}: a refused token is replaced when the database is back"))
        try:
            token = self._bridge.refresh(entry)
        except WorkerError as problem:
            return Lookup(replace(entry, problem=None), problem)
        return Lookup(entry.renewed(token, None))

    def _refused_again(self, entry: CacheEntry, wish: TokenRequirement) -> CachedFailure | None:
        """Whether the refused token is the fruit of a refusal itself."""
        if wish.newer_than is None or entry.token is None or wish.is_newer(entry.token):
            return None
        last = self._accounts.last_granted(entry.account_id, Trigger.REJECTED.value, within=_REFUSALS_APART)
        # The ledger is read after the row: a grant in between brought a token that nobody has refused yet.
        if last is None or self._accounts.find(entry.account_id, entry.email).version != entry.version:
            return None
        return refused(until=last + _REFUSALS_APART, now=self._utcnow())


def _refuse_inactive(account: Account) -> None:
    if account.status not in REFRESHABLE or not account.use_oauth:
        state = account.status.value if account.use_oauth else "not using OAuth"
        raise AccountInactive(account.email, state)


def _new_token(entry: CacheEntry, *, now: datetime) -> AccessToken:
    if entry.problem is None and entry.token is not None:
        return entry.token
    raise as_error(entry, now=now)


def _trigger(stored: Account, wish: TokenRequirement) -> Trigger:
    is_refused = wish.newer_than is not None and stored.version <= wish.newer_than
    return Trigger.REJECTED if is_refused else Trigger.CONSUMER
