"""A live access token for whoever asks: cache, then database, then one refresh however many ask."""

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from worker.domain.account import Account, AccountId, account_id, normalize_email
from worker.domain.cached_failure import UNKNOWN, TokenRequirement, as_error, passing, unknown
from worker.domain.errors import (
    AccountError,
    DatabaseUnavailable,
    InvalidInput,
    UnknownAccount,
    UnreadableSecret,
    WorkerError,
)
from worker.domain.policy import RefreshPolicy
from worker.domain.token import AccessToken, CacheEntry, MailAccount
from worker.service.accounts.reader import AccountReader
from worker.service.tokens.cache import TokenCache
from worker.service.tokens.on_demand import Lookup, OnDemandRefresh

_AT_A_TIME = 8  # accounts of one call that are refreshed together; each needs a connection to Postgres at times

Ask = tuple[AccountId, TokenRequirement]


class Tokens:
    """Serves access tokens to consumers; how better ones are come by is the renewal's business. Thread-safe.

    ``accounts`` is None for a consumer without Postgres.
    """

    def __init__(
        self,
        *,
        accounts: AccountReader | None,
        entries: TokenCache,
        renewal: OnDemandRefresh,
        policy: RefreshPolicy,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._accounts = accounts
        self._entries = entries
        self._renewal = renewal
        self._policy = policy
        self._utcnow = utcnow
        self._flights: dict[Ask, Future[Lookup]] = {}
        self._lock = threading.Lock()

    def get(self, email: str, *, min_ttl: timedelta | None = None) -> AccessToken:
        """A token that lives for ``min_ttl`` more, if any can be had; else one that lives, while a refresh is failing.

        Raises UnknownAccount, NeedsUser, BlockedByAdmin, BackingOff, AccountInactive, ClientMisconfigured,
        UnreadableSecret or Unavailable; InvalidInput if this is no e-mail address.
        """
        token = self.recall(email, min_ttl=min_ttl)
        if token is not None:
            return token
        wish = TokenRequirement(min_ttl=min_ttl)
        return self._token(email, self._standing(email, wish), wish)

    def recall(self, email: str, *, min_ttl: timedelta | None = None) -> AccessToken | None:
        """The same from this process's memory alone; None if it has to be looked up. Raises as ensure_fresh does."""
        entry = self._entries.recall(account_id(email))
        if entry is None:
            return None
        wish = TokenRequirement(min_ttl=min_ttl)
        if self._policy.suits(entry.token, wish, now=self._utcnow()):
            return entry.token  # as nearly always, and at half the cost
        return self._token(email, Lookup(entry), wish) if self._settles(entry, wish) else None

    def get_many(
        self, emails: Iterable[str], *, min_ttl: timedelta | None = None
    ) -> dict[str, AccessToken | WorkerError]:
        """ensure_fresh for many: one look at the cache, one query for what it has not, and then refreshes in parallel.

        An account's error is its value, and no other's business.
        """
        wish, results, wanted = (
            TokenRequirement(min_ttl=min_ttl),
            dict[str, AccessToken | WorkerError](),
            dict[str, AccountId](),
        )
        for email in emails:
            try:
                wanted[email] = account_id(email)
            except InvalidInput as error:
                results[email] = error
        standings = self._standings(wanted, wish)
        for email in wanted:
            try:
                results[email] = self._token(email, standings[email].result(), wish)
            except WorkerError as error:
                results[email] = error
        return results

    def report_rejected(self, email: str, version: int) -> AccessToken:
        """Another token than the one of this version, which the mail server has refused.

        If somebody has a newer one already, nobody asks Microsoft; else one refresh serves all who report it. Raises as
        ensure_fresh does, and TokenRefused if the refused token came of such a refresh itself, not long ago.
        """
        wish = TokenRequirement(newer_than=version)
        return self._token(email, self._standing(email, wish), wish)

    def load(self, email: str, *, min_ttl: timedelta | None = None) -> MailAccount:
        """All that a mail client needs to log in; raises as ensure_fresh does, if it is to be by OAuth."""
        wish = TokenRequirement(min_ttl=min_ttl)
        standing = self._standing(email, wish)
        entry = standing.entry
        token = self._token(email, standing, wish) if entry.use_oauth else None
        return MailAccount(email=entry.email, servers=entry.mail, use_oauth=entry.use_oauth, token=token)

    def answer(self, account: AccountId, wish: TokenRequirement) -> None:
        """Do for another process what it has asked for; it reads the outcome in the account's entry.

        Raises as ensure_fresh does.
        """
        entry = self._entries.read(account)
        if entry and self._policy.suits(entry.token, wish, now=self._utcnow()):
            return
        try:
            standing = self._together((account, wish), lambda: self._obtain(account, str(account), wish))
        except UnknownAccount:
            self._entries.publish([unknown(account, now=self._utcnow())])
            raise
        if isinstance(standing.error, AccountError) and (note := passing(standing.error, now=self._utcnow())):
            self._entries.publish([replace(standing.entry, problem=note)])
        self._token(standing.entry.email, standing, wish)

    def _standing(self, email: str, wish: TokenRequirement) -> Lookup:
        account = account_id(email)
        for look in (self._entries.recall, self._entries.read):
            if (entry := look(account)) and self._settles(entry, wish):
                return Lookup(entry)
        return self._together((account, wish), lambda: self._obtain(account, normalize_email(email), wish))

    def _obtain(self, account: AccountId, email: str, wish: TokenRequirement, seen: Account | None = None) -> Lookup:
        standing = self._renewal.obtain(account, email, wish, seen=seen)
        if isinstance(standing.error, AccountError) and (note := passing(standing.error, now=self._utcnow())):
            self._entries.keep([replace(standing.entry, problem=note)])  # for this process: others may have more luck
        return standing

    def _standings(self, wanted: Mapping[str, AccountId], wish: TokenRequirement) -> dict[str, "Future[Lookup]"]:
        recalled = {account: self._entries.recall(account) for account in wanted.values()}
        good = {account: entry for account, entry in recalled.items() if entry and self._settles(entry, wish)}
        read = self._entries.read_many([account for account in recalled if account not in good])
        good |= {account: entry for account, entry in read.items() if self._settles(entry, wish)}
        stored = self._stored([account for account in recalled if account not in good])
        # A row that is behind the cache is not the truth yet: see the renewal.
        level = {account: row for account, row in (stored or {}).items() if row.version >= _version(read.get(account))}
        good |= self._from_database(level, wish)

        def obtain(account: AccountId, email: str) -> Lookup:
            if stored is not None and account not in stored:
                raise UnknownAccount(email)
            seen = stored[account] if stored else None
            return self._together((account, wish), lambda: self._obtain(account, email, wish, seen))

        with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="tokens") as pool:
            return {
                email: _done(Lookup(good[account]))
                if account in good
                else pool.submit(obtain, account, normalize_email(email))
                for email, account in wanted.items()
            }

    def _stored(self, accounts: list[AccountId]) -> dict[AccountId, Account] | None:
        """None if Postgres cannot be asked."""
        with suppress(DatabaseUnavailable):
            return self._accounts.find_many(accounts) if self._accounts and accounts else None
        return None

    def _from_database(
        self, stored: Mapping[AccountId, Account], wish: TokenRequirement
    ) -> dict[AccountId, CacheEntry]:
        """What Postgres has of those that need no refresh, or may have none; into the cache with it."""
        suiting, noted = list[CacheEntry](), list[CacheEntry]()
        for account in stored.values():
            assert self._accounts
            with suppress(UnreadableSecret):  # told where it is found again, as that account's own error
                entry = self._accounts.entry(account)
                suits = self._policy.suits(entry.token, wish, now=self._utcnow())
                suiting += [entry] if suits else []
                noted += [entry] if entry.problem and not suits else []
        self._entries.recover(suiting)
        self._entries.publish(noted)
        return {entry.account_id: entry for entry in [*suiting, *noted]}

    def _settles(self, entry: CacheEntry, wish: TokenRequirement) -> bool:
        return self._policy.settles(entry, wish, now=self._utcnow())

    def _token(self, email: str, standing: Lookup, wish: TokenRequirement) -> AccessToken:
        entry, now = standing.entry, self._utcnow()
        if entry.token is not None and wish.allows(entry.token, now=now):
            return entry.token
        if entry.problem is not None and entry.problem.kind == UNKNOWN:
            raise UnknownAccount(email)
        raise standing.error or as_error(entry, now=now)

    def _together(self, ask: Ask, work: Callable[[], Lookup]) -> Lookup:
        """Within a process, whoever comes with the same wish while somebody works on it gets the same result."""
        with self._lock:
            flight = self._flights.get(ask)
            if leading := flight is None:
                flight = self._flights[ask] = Future()
        if not leading:
            return flight.result()
        try:
            flight.set_result(work())
        except BaseException as error:
            flight.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._flights[ask]
        return flight.result()


def _version(entry: CacheEntry | None) -> int:
    return entry.version if entry else 0


def _done(standing: Lookup) -> "Future[Lookup]":
    future: Future[Lookup] = Future()
    future.set_result(standing)
    return future
