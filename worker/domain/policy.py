"""When an account is due, and what an outcome changes. Pure: spread comes from a hash, never from random numbers."""

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import assert_never

from worker.domain.account import AccountId, Failure, Lease, LeaseId, Status
from worker.domain.cache_entry import CacheEntry
from worker.domain.cached_failure import is_trusted
from worker.domain.client_type import ClientType
from worker.domain.microsoft import ABANDONED, AGED_OUT
from worker.domain.outcome import (
    Blocked,
    Kind,
    Misconfigured,
    Outcome,
    ReauthRequired,
    Refreshed,
    Throttled,
    Transient,
)
from worker.domain.token import LONGEST_LIFETIME, AccessToken, Sealed, TokenRequirement

# An unknown invalid_grant counts as proof after this many in a row over this long: Entra also sends it for failures
# that end by themselves.
STRIKES = 3
STRIKES_OVER = timedelta(minutes=10)
_BETWEEN_STRIKES = timedelta(minutes=5)

# An account this late was not merely waiting for its turn: there was an outage, for it and for others.
LONG_OVERDUE = timedelta(minutes=10)

_NO_TIME = timedelta(0)
_EARLIEST_REFRESH = timedelta(minutes=1)  # after the last one: Microsoft takes equal requests in a row for a loop
_RETRIED = {Kind.THROTTLED, Kind.TRANSIENT}


@dataclass(slots=True, kw_only=True)
class AccountUpdate:
    """One write of a result. A token that is None stays as it is.

    The write happens if the row still has the version ``based_on`` and the lease ``lease_id``. New tokens are also
    written late, see db/leases.py: without a lease, and where ``replaces`` is still the digest of the stored token.
    """

    account_id: AccountId
    email: str
    based_on: int
    lease_id: LeaseId | None  # None for a result that has waited in the outbox
    status: Status
    due_at: datetime
    failure: Failure | None = None
    claims: str | None = None
    strikes: int = 0
    struck_at: datetime | None = None
    aged_out: bool = False  # the grant ended at a fixed age, which is worth remembering
    access_token: Sealed | None = None
    obtained_at: datetime | None = None
    expires_at: datetime | None = None
    refresh_token: Sealed | None = None
    client_type: ClientType = ClientType.CONFIDENTIAL  # that got the new tokens
    replaces: bytes | None = None  # SHA-256 of the sealed refresh token that was spent for ``refresh_token``

    @property
    def version(self) -> int:
        """The account's version after the write: new tokens make a new one."""
        return self.based_on + (self.access_token is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshPolicy:
    """The rules of scheduling. ``earliest`` and ``latest`` are fractions of an access token's lifetime."""

    earliest: float = 0.5
    latest: float = 0.7
    min_lead: timedelta = timedelta(minutes=5)
    backoff_base: timedelta = timedelta(seconds=5)  # Microsoft asks for at least 5 s before a first retry
    backoff_cap: timedelta = timedelta(minutes=15)
    recheck: timedelta = timedelta(days=1)
    comfortable: timedelta = timedelta(minutes=5)  # the remaining life a consumer gets unless it requires more

    def is_fresh(self, token: AccessToken, min_ttl: timedelta | None, *, now: datetime) -> bool:
        """Whether ``token`` will do, or a refresh would get a better one.

        Without ``min_ttl`` the bound is a quarter of the lifetime at most, so that reads do not race the schedule. A
        ``min_ttl`` counts up to 0.9 of the lifetime: beyond that each read would cost a refresh and still not get it.
        A token that lives longer than any has a wrong expiry, so it may be dead.
        """
        lifetime = token.expires_at - token.obtained_at
        wanted = min(self.comfortable, lifetime / 4) if min_ttl is None else min(min_ttl, lifetime * 0.9)
        return max(wanted, _NO_TIME) < token.expires_at - now <= LONGEST_LIFETIME

    def satisfies(self, token: AccessToken | None, requirement: TokenRequirement, *, now: datetime) -> bool:
        """Whether ``token`` meets the requirement, as far as any token can."""
        return token is not None and requirement.is_newer(token) and self.is_fresh(token, requirement.min_ttl, now=now)

    def is_conclusive(self, entry: CacheEntry, requirement: TokenRequirement, *, now: datetime) -> bool:
        """Whether the look-up ends here: the token satisfies, or it is known why there is no better one."""
        return self.satisfies(entry.token, requirement, now=now) or is_trusted(entry.failure, requirement, now=now)

    def due_at(self, account: AccountId, version: int, refreshed: Refreshed, *, in_backlog: bool = False) -> datetime:
        """The instant to refresh again, spread per account and version over the middle of the lifetime.

        ``in_backlog``: the account is due together with many others, after an import or an outage. Their next times are
        spread over the whole cycle, see ``_residual``; otherwise they would come back together for hours.
        """
        lifetime = refreshed.expires_at - refreshed.obtained_at
        earliest = lifetime * self.earliest
        chance = keyed_fraction(account, version)
        fraction = self._residual(chance) if in_backlog else self.earliest + (self.latest - self.earliest) * chance
        due = refreshed.obtained_at + max(lifetime * fraction, min(_EARLIEST_REFRESH, earliest))
        latest = refreshed.expires_at - self.min_lead
        if latest > refreshed.obtained_at + earliest:
            due = min(due, latest)  # a token too short-lived for the lead goes by the fraction alone
        if refreshed.refresh_on is not None:
            due = min(due, max(refreshed.refresh_on, refreshed.obtained_at + self.backoff_base))
        return due

    def _residual(self, chance: float) -> float:
        """The rest of a cycle at a random moment of it, as a fraction of the lifetime.

        The equilibrium of a renewal process (Cox, Renewal Theory, 1962, ch. 5): with waits uniform between earliest and
        latest its density is flat up to the earliest and falls in a straight line from there. Accounts that begin like
        this are due at a constant rate from then on.
        """
        area = chance * (self.earliest + self.latest) / 2
        if area <= self.earliest:
            return area
        return self.latest - math.sqrt((1 - chance) * (self.latest**2 - self.earliest**2))

    def backoff(self, account: AccountId, attempt: int) -> timedelta:
        """The wait after the ``attempt``-th failure in a row, from 1: doubling, capped, never below the base.

        Up to half as much again is added per account, also at the cap, so that failing accounts do not gather.
        """
        ceiling = self.backoff_cap / 1.5
        doubled = min(ceiling, self.backoff_base * (1 << min(attempt - 1, 30)))
        return doubled * (1 + keyed_fraction(account, attempt) / 2)

    def plan(self, lease: Lease, outcome: Outcome, *, now: datetime) -> AccountUpdate:
        """Decide what ``outcome`` changes on the leased account. Tokens are still to be sealed into the update."""
        match outcome:
            case Refreshed():
                due = self.due_at(lease.account_id, lease.version + 1, outcome, in_backlog=lease.in_backlog)
                return _update(lease, status=Status.ACTIVE, due_at=due)
            case Throttled() | Transient():
                return self._retry(lease, outcome, now=now, at_least=outcome.retry_after)
            case Misconfigured():
                return self._await_repair(lease, outcome, now=now)
            case ReauthRequired(certain=True):
                return self._end(lease, outcome, Status.REAUTH_REQUIRED, now=now)
            case ReauthRequired():
                return self._strike(lease, outcome, now=now)
            case Blocked():
                return self._end(lease, outcome, Status.BLOCKED, now=now)
            case unreachable:
                assert_never(unreachable)

    def _retry(
        self, lease: Lease, outcome: Outcome, *, now: datetime, at_least: timedelta | None = None
    ) -> AccountUpdate:
        failure = streak(lease.failure, outcome, now=now)
        wait = self.backoff(lease.account_id, failure.count)
        if at_least is not None:
            # Retry-After wins over our own back-off, never the other way round. Many accounts get the same Retry-After,
            # so they come back spread over a tenth of it.
            wait = max(wait, at_least * (1 + keyed_fraction(lease.account_id, failure.count) / 10))
        return _failed(lease, failure, due_at=now + wait)

    def _await_repair(self, lease: Lease, outcome: Misconfigured, *, now: datetime) -> AccountUpdate:
        # A tenant without the app, or a tenant that is gone, may be a mistake that an administrator corrects within the
        # hour. After a day of it an administrator must hear of it.
        if outcome.code in ABANDONED and (lease.status is Status.BLOCKED or self._has_lasted(lease.failure, now=now)):
            return self._end(lease, outcome, Status.BLOCKED, now=now)
        return self._retry(lease, outcome, now=now)

    def _has_lasted(self, failure: Failure | None, *, now: datetime) -> bool:
        return failure is not None and failure.code in ABANDONED and now - failure.since >= self.recheck

    def _strike(self, lease: Lease, outcome: ReauthRequired, *, now: datetime) -> AccountUpdate:
        strikes, since = lease.strikes + 1, lease.struck_at or now
        if strikes >= STRIKES and now - since >= STRIKES_OVER:
            update = self._end(lease, outcome, Status.REAUTH_REQUIRED, now=now)
        else:
            failure = streak(lease.failure, outcome, now=now)
            update = _failed(lease, failure, due_at=now + _BETWEEN_STRIKES)
        update.strikes, update.struck_at = strikes, since
        return update

    def _end(self, lease: Lease, outcome: Outcome, status: Status, *, now: datetime) -> AccountUpdate:
        failure = streak(lease.failure, outcome, now=now)
        # Requested again a day later. The hash spreads the day's requests.
        due = now + self.recheck * (1 + keyed_fraction(lease.account_id, failure.count) / 10)
        update = _failed(lease, failure, due_at=due)
        update.status = status
        update.claims = outcome.claims if isinstance(outcome, ReauthRequired) else None
        update.aged_out = outcome.code in AGED_OUT and lease.status is Status.ACTIVE
        return update


def _failed(lease: Lease, failure: Failure, *, due_at: datetime) -> AccountUpdate:
    update = _update(lease, status=lease.status, due_at=due_at)
    update.failure, update.strikes, update.struck_at = failure, lease.strikes, lease.struck_at
    return update


def _update(lease: Lease, *, status: Status, due_at: datetime) -> AccountUpdate:
    return AccountUpdate(
        account_id=lease.account_id,
        email=lease.email,
        based_on=lease.version,
        lease_id=lease.lease_id,
        status=status,
        due_at=due_at,
    )


def streak(failure: Failure | None, outcome: Outcome, *, now: datetime) -> Failure:
    """The failure streak after ``outcome``: one longer if it is of the same class, otherwise a new one.

    Throttled and transient count as one, or answers that alternate between 429 and 503 would never back off.
    """
    current = outcome.kind
    if failure is not None and (failure.kind == current or {failure.kind, current} == _RETRIED):
        return replace(failure, kind=current, code=outcome.code, count=failure.count + 1)
    return Failure(kind=current, code=outcome.code, count=1, since=now)


def keyed_fraction(account: AccountId, salt: int) -> float:
    """A number in [0, 1) that is the same in every process and uncorrelated between accounts and salts."""
    digest = blake2b(account.bytes, digest_size=8, salt=salt.to_bytes(16, "big", signed=salt < 0)).digest()
    return int.from_bytes(digest, "big") / 2**64
