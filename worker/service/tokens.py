"""A live access token for whoever asks: cache, then database, then one refresh however many ask."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime, timedelta
from typing import assert_never

import structlog

from worker.db import credentials
from worker.db.session import Database
from worker.domain.credential import (
    REFRESHABLE,
    AccessToken,
    Account,
    AccountId,
    CacheEntry,
    Status,
    account_id,
    normalize_email,
)
from worker.domain.errors import (
    AccountError,
    AccountInactive,
    BackingOff,
    BlockedByAdmin,
    ClientMisconfigured,
    DatabaseUnavailable,
    NeedsUser,
    Unavailable,
    UnknownAccount,
    UnreadableSecret,
    WorkerError,
)
from worker.domain.policy import RefreshPolicy
from worker.service.bridge import Bridge
from worker.service.entries import Entries
from worker.service.patience import looks
from worker.service.recovery import Recovery
from worker.service.refresh import Refresher
from worker.service.settlement import Trigger
from worker.vault import Purpose, Vault

log = structlog.get_logger(__name__)


Wish = tuple[AccountId, timedelta | None]


class Tokens:
    """Serves access tokens to consumers. Thread-safe."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        entries: Entries,
        bridge: Bridge,
        recovery: Recovery,
        refresher: Refresher,
        policy: RefreshPolicy,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._vault = vault
        self._entries = entries
        self._bridge = bridge
        self._recovery = recovery
        self._refresher = refresher
        self._policy = policy
        self._utcnow = utcnow
        self._flights: dict[Wish, Future[AccessToken]] = {}
        self._lock = threading.Lock()

    def ensure_fresh(self, email: str, *, min_ttl: timedelta | None = None) -> AccessToken:
        """A token that lives for ``min_ttl`` more, if any can be had; else one that lives, while a refresh is failing.

        Raises UnknownAccount, NeedsUser, BlockedByAdmin, BackingOff, AccountInactive, ClientMisconfigured,
        UnreadableSecret or Unavailable; InvalidInput if this is no e-mail address.
        """
        account = account_id(email)
        entry = self._entries.read(account)
        if entry and entry.token and self._fresh(entry.token, min_ttl):
            return entry.token
        return self._together((account, min_ttl), lambda: self._obtain(account, normalize_email(email), min_ttl))

    def refresh(self, account: AccountId, trigger: Trigger = Trigger.OPERATOR) -> AccessToken:
        """Refresh now, whatever the schedule and the account's failures say. Raises as ensure_fresh does."""
        known = self._find(account, str(account))
        _refuse_inactive(known)
        for _look in looks():
            stored = self._find(known.id, known.email)
            moved = stored.version != known.version
            if moved or (not stored.is_leased(self._utcnow()) and self._refresher.refresh_one(stored, trigger)):
                newest = self._find(known.id, known.email)
                ahead = self._ahead(newest)
                return ahead.token if ahead and ahead.token else self._live_token(newest)
        raise Unavailable(f"{known.email}: another worker holds this account; try again in a minute")

    def _obtain(self, account: AccountId, email: str, min_ttl: timedelta | None) -> AccessToken:
        try:
            return self._from_database(account, email, min_ttl)
        except DatabaseUnavailable as error:
            return self._from_cache_alone(account, min_ttl, error)

    def _from_database(self, account: AccountId, email: str, min_ttl: timedelta | None) -> AccessToken:
        asked = False
        token: AccessToken | None = None
        for _look in looks():
            stored = self._find(account, email)
            if ahead := self._from_ahead(stored, None if asked else min_ttl):
                return ahead
            token = self._token(stored)
            if token and self._fresh(token, min_ttl):
                return token if asked else self._recovered(stored, token)
            problem = self._problem(stored, asked=asked)
            if problem or asked:
                return self._still_alive(token, problem or Unavailable(f"{email}: no usable token was given"))
            if not stored.is_leased(self._utcnow()):
                try:
                    asked = self._refresher.refresh_one(stored, Trigger.CONSUMER) is not None
                except AccountError as error:
                    return self._still_alive(token, error)
            elif token and token.ttl(self._utcnow()) > timedelta(0):
                return token  # it is being refreshed; no need to make anybody wait for it
        return self._still_alive(token, Unavailable(f"{email}: the refresh by another worker has not finished"))

    def _from_cache_alone(
        self, account: AccountId, min_ttl: timedelta | None, error: DatabaseUnavailable
    ) -> AccessToken:
        """Postgres is away: what lives in Redis will do, and if it does not, Redis holds what it takes to get more."""
        entry = self._entries.read(account)
        if entry is None:
            raise error
        return self._from_entry(entry, min_ttl)

    def _from_entry(self, entry: CacheEntry, min_ttl: timedelta | None) -> AccessToken:
        if entry.token and self._fresh(entry.token, min_ttl):
            return entry.token
        try:
            return self._bridge.refresh(entry)
        except WorkerError as problem:
            return self._still_alive(entry.token, problem)

    def _from_ahead(self, stored: Account, min_ttl: timedelta | None) -> AccessToken | None:
        ahead = self._ahead(stored)
        if ahead is None:
            return None
        if ahead.token and self._fresh(ahead.token, min_ttl):
            return ahead.token
        return self._from_entry(ahead, min_ttl) if self._recovery.is_waiting(stored.id) else None

    def _ahead(self, stored: Account) -> CacheEntry | None:
        """The account's entry, if Postgres has not taken what it holds: that waits in the outbox, and the row may stay
        leased until it is brought home."""
        entry = self._entries.read(stored.id)
        return entry if entry and entry.version > stored.version else None

    def _recovered(self, stored: Account, token: AccessToken) -> AccessToken:
        if self._entries.publish([_entry(stored, token)]):
            log.info("Recovered credentials from database and cached in Redis", email=stored.email)
        return token

    def _still_alive(self, token: AccessToken | None, problem: WorkerError) -> AccessToken:
        if token and token.ttl(self._utcnow()) > timedelta(0):
            return token
        raise problem

    def _live_token(self, stored: Account) -> AccessToken:
        """The token after a refresh; raises what the refresh ended with."""
        problem = self._problem(stored, asked=True)
        if problem:
            raise problem
        token = self._token(stored)
        if token is None:
            raise Unavailable(f"{stored.email}: no access token is stored")
        return token

    def _problem(self, stored: Account, *, asked: bool) -> AccountError | None:  # noqa: PLR0911 - one per state
        """Why asking Microsoft now would be wrong; ``asked`` if this very call has just done it."""
        failure, now = stored.failure, self._utcnow()
        code = failure.code if failure else ""
        match stored.status:
            case Status.PAUSED | Status.DISCONNECTED:
                return AccountInactive(stored.email, stored.status.value)
            case Status.UNREADABLE:
                return AccountInactive(stored.email, "unreadable with the keys in WORKER_ENCRYPTION_KEYS")
            case Status.REAUTH_REQUIRED:
                return NeedsUser(stored.email, code, stored.claims)
            case Status.BLOCKED:
                return BlockedByAdmin(stored.email, code)
            case Status.ACTIVE:
                if not stored.use_oauth:
                    return AccountInactive(stored.email, "not using OAuth")
            case unreachable:
                assert_never(unreachable)
        if failure is None or stored.leased or stored.due_at is None or (stored.due_at <= now and not asked):
            return None
        if failure.kind == "misconfigured":
            return ClientMisconfigured(stored.email, stored.client, code)
        return BackingOff(stored.email, code, stored.due_at - now)

    def _find(self, account: AccountId, email: str) -> Account:
        with self._database.begin() as connection:
            stored = credentials.find(connection, account)
        if stored is None:
            raise UnknownAccount(email)
        return stored

    def _token(self, stored: Account) -> AccessToken | None:
        if stored.access_token is None or stored.expires_at is None or stored.obtained_at is None:
            return None
        try:
            secret = self._vault.open(stored.access_token, stored.id, Purpose.ACCESS_TOKEN)
        except UnreadableSecret as error:
            raise UnreadableSecret(f"{stored.email}: {error}") from None
        return AccessToken(
            email=stored.email,
            secret=secret,
            obtained_at=stored.obtained_at,
            expires_at=stored.expires_at,
            version=stored.version,
        )

    def _fresh(self, token: AccessToken, min_ttl: timedelta | None) -> bool:
        return self._policy.is_fresh(token, min_ttl, now=self._utcnow())

    def _together(self, wish: Wish, work: Callable[[], AccessToken]) -> AccessToken:
        """Within a process, whoever comes with the same wish while somebody works on it gets the same result."""
        with self._lock:
            flight = self._flights.get(wish)
            if leading := flight is None:
                flight = self._flights[wish] = Future()
        if not leading:
            return flight.result()
        try:
            flight.set_result(work())
        except BaseException as error:
            flight.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._flights[wish]
        return flight.result()


def _refuse_inactive(account: Account) -> None:
    if account.status not in REFRESHABLE or not account.use_oauth:
        state = account.status.value if account.use_oauth else "not using OAuth"
        raise AccountInactive(account.email, state)


def _entry(stored: Account, token: AccessToken) -> CacheEntry:
    return CacheEntry(
        account_id=stored.id,
        email=stored.email,
        status=stored.status,
        version=stored.version,
        client=stored.client,
        authority=stored.authority,
        scopes=stored.scopes,
        token=token,
        refresh_token=stored.refresh_token,
    )
