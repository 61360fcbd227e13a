"""Refreshes from the cached refresh token while Postgres is away. The new tokens wait in the outbox for its return."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

import structlog

from worker.cache import Locks, RateLimiter
from worker.db.late_writes import PendingResult, mark
from worker.domain.account import Status
from worker.domain.errors import (
    AccountError,
    BackingOff,
    BlockedByAdmin,
    ClientMisconfigured,
    NeedsUser,
    Unavailable,
    UnreadableSecret,
)
from worker.domain.outcome import Blocked, Misconfigured, Outcome, ReauthRequired, Refreshed, Throttled, Transient
from worker.domain.policy import RefreshPolicy
from worker.domain.secret import Sealed
from worker.domain.token import AccessToken, CacheEntry
from worker.identity import Identity
from worker.service.refresh.outbox import Outbox
from worker.service.surprise import foreseen
from worker.service.tokens.cache import TokenCache
from worker.service.tokens.polling import looks
from worker.vault import Purpose, Vault

log = structlog.get_logger(__name__)

_LEASE = timedelta(seconds=60)  # longer than the longest question


class Bridge:
    """Thread-safe. Needs Redis; raises Unavailable without."""

    def __init__(
        self,
        *,
        vault: Vault,
        identity: Identity,
        entries: TokenCache,
        recovery: Outbox,
        locks: Locks,
        limiter: RateLimiter,
        policy: RefreshPolicy,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._vault = vault
        self._identity = identity
        self._entries = entries
        self._recovery = recovery
        self._locks = locks
        self._limiter = limiter
        self._policy = policy
        self._utcnow = utcnow

    def refresh(self, entry: CacheEntry) -> AccessToken:
        """A newer token than the entry's, by whoever gets the lock; the others wait for it.

        Raises BackingOff, NeedsUser, BlockedByAdmin, ClientMisconfigured, UnreadableSecret or Unavailable.
        """
        for _look in looks():
            if noted := self._locks.left_alone(entry.account_id):
                raise BackingOff(entry.email, *noted)
            owner = self._locks.acquire(entry.account_id, lease=_LEASE)
            try:
                newest = self._entries.read(entry.account_id) or entry  # as the last owner has left it
                if newest.token and newest.version > entry.version:
                    return newest.token
                if owner:
                    return self._spend(newest)
            finally:
                if owner:
                    with suppress(Unavailable):  # it ends by itself; what has been got is worth more
                        self._locks.release([entry.account_id], owner)
        raise Unavailable(f"{entry.email}: the refresh by another process has not finished")

    def _spend(self, entry: CacheEntry) -> AccessToken:
        if entry.refresh_token is None or entry.status is not Status.ACTIVE:
            raise Unavailable(f"{entry.email}: the database is away, and the cache holds nothing to refresh with")
        token = self._vault.open(entry.refresh_token, entry.account_id, Purpose.REFRESH_TOKEN)
        if not self._limiter.take(entry.client, 1):
            raise BackingOff(entry.email, "rate_limited", _LEASE)
        answer = self._identity.refresh(
            token, client=entry.client, authority=entry.authority, scopes=entry.scopes, now=self._utcnow
        )
        outcome = foreseen(answer, entry.email)
        if not isinstance(outcome, Refreshed):
            problem, wait = _problem(entry, outcome, self._policy)
            with suppress(Unavailable):
                self._locks.leave_alone(entry.account_id, outcome.code, wait)
            raise problem
        return self._keep(entry, outcome)

    def _keep(self, entry: CacheEntry, outcome: Refreshed) -> AccessToken:
        assert entry.refresh_token is not None
        account, version = entry.account_id, entry.version + 1
        rotated = outcome.refresh_token
        update = PendingResult(
            account_id=account,
            email=entry.email,
            base=entry.version,
            version=version,
            spent=mark(entry.refresh_token) if rotated else b"",
            access_token=self._vault.seal(outcome.access_token, account, Purpose.ACCESS_TOKEN),
            refresh_token=self._vault.seal(rotated, account, Purpose.REFRESH_TOKEN) if rotated else None,
            previous_refresh_token=self._previous(entry) if rotated else None,
            obtained_at=outcome.obtained_at,
            expires_at=outcome.expires_at,
            due_at=self._policy.due_at(account, version, outcome),
        )
        try:
            self._recovery.follow(update, entry.refresh_token)
            log.warning("Token kept in the outbox until the database takes it", email=entry.email)
        except (Unavailable, UnreadableSecret) as error:
            # Nobody takes them: the consumer gets its token, and the refresh token before stays good at Microsoft.
            log.error("Error persisting tokens to database", email=entry.email, reason=str(error))  # noqa: TRY400
        token = AccessToken(
            email=entry.email,
            secret=outcome.access_token,
            obtained_at=outcome.obtained_at,
            expires_at=outcome.expires_at,
            version=version,
        )
        self._entries.publish([entry.renewed(token, update.refresh_token)])
        return token

    def _previous(self, entry: CacheEntry) -> Sealed | None:
        assert entry.refresh_token is not None
        spent = self._vault.open(entry.refresh_token, entry.account_id, Purpose.REFRESH_TOKEN)
        return self._vault.seal(spent, entry.account_id, Purpose.PREVIOUS_REFRESH_TOKEN)


def _problem(entry: CacheEntry, outcome: Outcome, policy: RefreshPolicy) -> tuple[AccountError, timedelta]:
    """What to tell the consumer, and for how long nobody shall ask again. Nothing is decided while Postgres is away."""
    wait = policy.backoff(entry.account_id, 1)
    match outcome:
        case ReauthRequired(certain=True):
            return NeedsUser(entry.email, outcome.code, outcome.claims), policy.backoff_cap
        case Blocked():
            return BlockedByAdmin(entry.email, outcome.code), policy.backoff_cap
        case Misconfigured():
            return ClientMisconfigured(entry.email, entry.client, outcome.code), wait
        case Throttled() | Transient():
            wait = max(wait, outcome.retry_after or wait)
            return BackingOff(entry.email, outcome.code, wait), wait
        case _:
            return BackingOff(entry.email, outcome.code, wait), wait
