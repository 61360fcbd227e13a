"""What stands between an account and a better token, and for how long that is believed without a look at Postgres."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from worker.domain.account import Account, AccountId, Status
from worker.domain.errors import (
    AccountError,
    AccountInactive,
    BackingOff,
    BlockedByAdmin,
    ClientMisconfigured,
    NeedsUser,
    TokenRefused,
    Unavailable,
    WorkerError,
)
from worker.domain.token import AccessToken, CachedFailure, CacheEntry

TRUST = timedelta(seconds=60)  #: a note's longest life; Postgres may know better by then
PASSING = timedelta(seconds=10)  #: likewise for what stands in one process's way, and perhaps in no other's

REFUSED = "token_refused"  #: a kind of Problem: fresh tokens are refused by the mail server
UNKNOWN = "unknown_account"  #: likewise: no such account is stored
_SET_ASIDE = "set_aside"  # by an operator, a lost key or for want of OAuth
_MISCONFIGURED = "misconfigured"
_TRANSIENT = "transient"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequirement:
    """What a caller wants of a token. ``newer_than``: the version that the mail server has refused."""

    min_ttl: timedelta | None = None
    newer_than: int | None = None

    def allows(self, token: AccessToken | None, *, now: datetime) -> bool:
        """Whether the token is better than none: it lives, and is not the refused one."""
        return token is not None and token.expires_at > now and self.is_newer(token)

    def is_newer(self, token: AccessToken) -> bool:
        return self.newer_than is None or token.version > self.newer_than


def problem_of(account: Account, *, now: datetime, asked: bool = False) -> CachedFailure | None:
    """Why asking Microsoft now would be wrong; ``asked`` if the caller has just done it."""
    failure = account.failure
    kind, code = (failure.kind, failure.code) if failure else ("", "")
    match account.status:
        case Status.PAUSED | Status.DISCONNECTED | Status.UNREADABLE:
            return CachedFailure(kind=_SET_ASIDE, code=account.status.value, noted_at=now)
        case Status.REAUTH_REQUIRED | Status.BLOCKED:
            return CachedFailure(kind=kind, code=code, claims=account.claims, noted_at=now)
        case Status.ACTIVE:
            if not account.use_oauth:
                return CachedFailure(kind=_SET_ASIDE, code="password", noted_at=now)
        case unreachable:
            assert_never(unreachable)
    due_at = account.due_at
    if failure is None or account.lease_until or due_at is None or (due_at <= now and not asked):
        return None
    return CachedFailure(kind=kind, code=code, retry_at=due_at, noted_at=now)


def passing(error: AccountError, *, now: datetime) -> CachedFailure | None:
    """What has stopped a process before it could ask, as a short note; None for what is no matter of time."""
    match error:
        case ClientMisconfigured():
            return CachedFailure(kind=_MISCONFIGURED, code=error.reason, retry_at=now + PASSING, noted_at=now)
        case BackingOff():
            wait = min(error.retry_after, PASSING)
            return CachedFailure(kind=_TRANSIENT, code=error.reason, retry_at=now + wait, noted_at=now)
        case _:
            return None


def refused(*, until: datetime, now: datetime) -> CachedFailure:
    """Another refresh would not help: the last one was for the same reason, and not long ago."""
    return CachedFailure(kind=REFUSED, code=REFUSED, retry_at=until, noted_at=now)


def unknown(account: AccountId, *, now: datetime) -> CacheEntry:
    """An entry that says that there is no such account, for who cannot ask Postgres. Any other outranks it."""
    problem = CachedFailure(kind=UNKNOWN, code=UNKNOWN, retry_at=now + PASSING, noted_at=now)
    return CacheEntry(account_id=account, email="", status=Status.DISCONNECTED, version=0, problem=problem)


def stands(problem: CachedFailure | None, wish: TokenRequirement, *, now: datetime) -> bool:
    """Whether the problem is one for this wish, and its time is not over."""
    if problem is None or (problem.kind == REFUSED and wish.newer_than is None):
        return False
    return problem.retry_at is None or now < problem.retry_at


def is_trusted(problem: CachedFailure | None, wish: TokenRequirement, *, now: datetime) -> bool:
    """Whether it stands and was noted so lately that nobody needs to look again."""
    return problem is not None and stands(problem, wish, now=now) and now - problem.noted_at < TRUST


def as_error(entry: CacheEntry, *, now: datetime) -> WorkerError:  # noqa: PLR0911 - one per state
    """What to raise for an account of which no usable token can be had."""
    problem = entry.problem
    if problem is None:
        return Unavailable(f"{entry.email}: no usable token was given")
    left = max(timedelta(0), (problem.retry_at or now) - now)
    if problem.kind == REFUSED:
        return TokenRefused(entry.email, left)
    match entry.status:
        case Status.PAUSED | Status.DISCONNECTED | Status.UNREADABLE:
            return AccountInactive(entry.email, entry.status.value)
        case Status.REAUTH_REQUIRED:
            return NeedsUser(entry.email, problem.code, problem.claims)
        case Status.BLOCKED:
            return BlockedByAdmin(entry.email, problem.code)
        case Status.ACTIVE:
            if not entry.use_oauth:
                return AccountInactive(entry.email, "not using OAuth")
        case unreachable:
            assert_never(unreachable)
    if problem.kind == _MISCONFIGURED:
        return ClientMisconfigured(entry.email, entry.client, problem.code)
    return BackingOff(entry.email, problem.code, left)


def entry_of(account: Account, token: AccessToken | None, problem: CachedFailure | None) -> CacheEntry:
    """A stored account as the cache keeps it."""
    return CacheEntry(
        account_id=account.id,
        email=account.email,
        status=account.status,
        version=account.version,
        client=account.client,
        authority=account.authority,
        scopes=account.scopes,
        token=token,
        refresh_token=account.refresh_token,
        use_oauth=account.use_oauth,
        mail=account.mail,
        problem=problem,
    )
