"""When a credential is due, and what an outcome changes. Pure: the spread comes from a hash, never from dice."""

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import assert_never

from worker.domain.account import AccountId, Failure, Lease, Status
from worker.domain.cached_failure import TokenRequirement, is_trusted
from worker.domain.microsoft import ABANDONED
from worker.domain.outcome import (
    Blocked,
    Misconfigured,
    Outcome,
    ReauthRequired,
    Refreshed,
    Throttled,
    Transient,
    kind,
)
from worker.domain.token import AccessToken, CacheEntry

# An unknown invalid_grant counts as proof after this many in a row over this long: Entra also sends it for what passes.
STRIKES = 3
STRIKES_OVER = timedelta(minutes=10)
_BETWEEN_STRIKES = timedelta(minutes=5)

# So long after its time an account was not merely waiting for its turn: there was an outage, for it and for others.
LONG_OVERDUE = timedelta(minutes=10)

_NONE = timedelta(0)
_SOONEST = timedelta(minutes=1)  # after a refresh: Microsoft takes equal requests in a row for a loop
_BUSY = {"throttled", "transient"}


@dataclass(slots=True, kw_only=True)
class Transition:
    """What one outcome changes on its account. ``refreshed`` is None unless there are new tokens to store."""

    claim: Lease
    outcome: Outcome
    status: Status
    due_at: datetime
    failure: Failure | None
    strikes: int
    struck_at: datetime | None
    refreshed: Refreshed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshPolicy:
    """The knobs of scheduling. Durations; fractions are of an access token's lifetime."""

    earliest: float = 0.5
    latest: float = 0.7
    min_lead: timedelta = timedelta(minutes=5)
    backoff_base: timedelta = timedelta(seconds=5)  # Microsoft asks for at least 5 s before a first retry
    backoff_cap: timedelta = timedelta(minutes=15)
    recheck: timedelta = timedelta(days=1)
    comfortable: timedelta = timedelta(minutes=5)  # the remaining life a consumer gets unless it asks for more

    def is_fresh(self, token: AccessToken, min_ttl: timedelta | None, *, now: datetime) -> bool:
        """Whether ``token`` will do, or a refresh would get a better one.

        Without a wish the bound is a quarter of the lifetime at most, so that reads do not race the schedule; a wish is
        honoured up to 0.9 of the lifetime, because beyond that each read would cost a refresh and still not get it.
        """
        lifetime = token.expires_at - token.obtained_at
        wanted = min(self.comfortable, lifetime / 4) if min_ttl is None else min(min_ttl, lifetime * 0.9)
        return token.expires_at - now > max(wanted, _NONE)

    def suits(self, token: AccessToken | None, wish: TokenRequirement, *, now: datetime) -> bool:
        """Whether ``token`` is what was wished for, as far as any token can be."""
        return token is not None and wish.is_newer(token) and self.is_fresh(token, wish.min_ttl, now=now)

    def settles(self, entry: CacheEntry, wish: TokenRequirement, *, now: datetime) -> bool:
        """Whether nobody needs to look any further: its token suits, or it is known why there is no better one."""
        return self.suits(entry.token, wish, now=now) or is_trusted(entry.problem, wish, now=now)

    def due_at(self, account: AccountId, version: int, refreshed: Refreshed, *, in_backlog: bool = False) -> datetime:
        """The instant to refresh again, spread per account and version over the middle of the lifetime.

        ``in_crowd``: it comes together with many others, after an import or an outage, and they would all come back
        together for hours. So they come back as if they had always been there: see ``_residual``.
        """
        lifetime = refreshed.expires_at - refreshed.obtained_at
        earliest = lifetime * self.earliest
        chance = keyed_fraction(account, version)
        fraction = self._residual(chance) if in_backlog else self.earliest + (self.latest - self.earliest) * chance
        due = refreshed.obtained_at + max(lifetime * fraction, min(_SOONEST, earliest))
        last_call = refreshed.expires_at - self.min_lead
        if last_call > refreshed.obtained_at + earliest:
            due = min(due, last_call)  # a token too short-lived for the lead goes by the fraction alone
        if refreshed.refresh_on is not None:
            due = min(due, max(refreshed.refresh_on, refreshed.obtained_at + self.backoff_base))
        return due

    def _residual(self, chance: float) -> float:
        """What is left, of a lifetime, until the next refresh of an account that is looked at at some instant.

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

        The spread is up to half as much again, also at the cap: a common cap would gather the failing into a herd.
        """
        ceiling = self.backoff_cap / 1.5
        doubled = min(ceiling, self.backoff_base * (1 << min(attempt - 1, 30)))
        return doubled * (1 + keyed_fraction(account, attempt) / 2)

    def plan(self, claim: Lease, outcome: Outcome, *, now: datetime) -> Transition:
        """Decide what ``outcome`` means for the claimed account."""
        match outcome:
            case Refreshed():
                due = self.due_at(claim.account_id, claim.version + 1, outcome, in_backlog=claim.in_backlog)
                return Transition(
                    claim=claim,
                    outcome=outcome,
                    status=Status.ACTIVE,
                    due_at=due,
                    failure=None,
                    strikes=0,
                    struck_at=None,
                    refreshed=outcome,
                )
            case Throttled() | Transient():
                return self._retry(claim, outcome, now=now, at_least=outcome.retry_after)
            case Misconfigured():
                return self._await_repair(claim, outcome, now=now)
            case ReauthRequired(certain=True):
                return self._end(claim, outcome, Status.REAUTH_REQUIRED, now=now)
            case ReauthRequired():
                return self._strike(claim, outcome, now=now)
            case Blocked():
                return self._end(claim, outcome, Status.BLOCKED, now=now)
            case unreachable:
                assert_never(unreachable)

    def _retry(self, claim: Lease, outcome: Outcome, *, now: datetime, at_least: timedelta | None = None) -> Transition:
        failure = streak(claim.failure, outcome, now=now)
        wait = self.backoff(claim.account_id, failure.count)
        if at_least is not None:
            # Retry-After wins over our own arithmetic, never the other way round; and because many are told the same,
            # they come back spread over a tenth of it.
            wait = max(wait, at_least * (1 + keyed_fraction(claim.account_id, failure.count) / 10))
        return _failed(claim, outcome, failure, due_at=now + wait)

    def _await_repair(self, claim: Lease, outcome: Misconfigured, *, now: datetime) -> Transition:
        # A tenant without the app, or that is no more, may be somebody's slip that is mended within the hour. After a
        # day of it nobody mends anything until they are told.
        if outcome.code in ABANDONED and (claim.status is Status.BLOCKED or self._has_lasted(claim.failure, now=now)):
            return self._end(claim, outcome, Status.BLOCKED, now=now)
        return self._retry(claim, outcome, now=now)

    def _has_lasted(self, failure: Failure | None, *, now: datetime) -> bool:
        return failure is not None and failure.code in ABANDONED and now - failure.since >= self.recheck

    def _strike(self, claim: Lease, outcome: ReauthRequired, *, now: datetime) -> Transition:
        strikes, since = claim.strikes + 1, claim.struck_at or now
        if strikes >= STRIKES and now - since >= STRIKES_OVER:
            ended = self._end(claim, outcome, Status.REAUTH_REQUIRED, now=now)
            return replace(ended, strikes=strikes, struck_at=since)
        failure = streak(claim.failure, outcome, now=now)
        return replace(
            _failed(claim, outcome, failure, due_at=now + _BETWEEN_STRIKES), strikes=strikes, struck_at=since
        )

    def _end(self, claim: Lease, outcome: Outcome, status: Status, *, now: datetime) -> Transition:
        failure = streak(claim.failure, outcome, now=now)
        # Looked at again tomorrow, and not with everybody else: the hash spreads the day's re-checks.
        due = now + self.recheck * (1 + keyed_fraction(claim.account_id, failure.count) / 10)
        return replace(_failed(claim, outcome, failure, due_at=due), status=status)


def _failed(claim: Lease, outcome: Outcome, failure: Failure, *, due_at: datetime) -> Transition:
    return Transition(
        claim=claim,
        outcome=outcome,
        status=claim.status,
        due_at=due_at,
        failure=failure,
        strikes=claim.strikes,
        struck_at=claim.struck_at,
    )


def streak(failure: Failure | None, outcome: Outcome, *, now: datetime) -> Failure:
    """The failure streak after ``outcome``: one longer if it is of the same class, else a new one.

    Throttled and transient count as one, or answers that alternate between 429 and 503 would never back off.
    """
    now_failing = kind(outcome)
    if failure is not None and (failure.kind == now_failing or {failure.kind, now_failing} == _BUSY):
        return replace(failure, kind=now_failing, code=outcome.code, count=failure.count + 1)
    return Failure(kind=kind(outcome), code=outcome.code, count=1, since=now)


def keyed_fraction(account: AccountId, salt: int) -> float:
    """A number in [0, 1) that is the same in every process and uncorrelated between accounts and salts."""
    digest = blake2b(account.bytes, digest_size=8, salt=salt.to_bytes(16, "big")).digest()
    return int.from_bytes(digest, "big") / 2**64
