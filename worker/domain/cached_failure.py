"""Why an account cannot get a better token now, and how long that is believed before Postgres is read again."""

from datetime import datetime, timedelta
from typing import assert_never

from worker.domain.account import REFRESHABLE, Account, AccountId, Status
from worker.domain.cache_entry import CachedFailure, CacheEntry
from worker.domain.errors import (
    AccountInactive,
    BackingOff,
    BlockedByAdmin,
    ClientMisconfigured,
    NeedsUser,
    TokenRefused,
    Unavailable,
    UnknownAccount,
    WorkerError,
)
from worker.domain.outcome import Kind
from worker.domain.token import TokenRequirement

LIFETIME = timedelta(seconds=60)  #: of a cached failure at most; Postgres may know better by then
PROCESS_LIFETIME = timedelta(seconds=10)  #: of a failure that concerns one process, and perhaps no other

# Kinds of a CachedFailure that are no outcome of a refresh.
REJECTED = "token_refused"  #: the mail server rejects fresh tokens too
UNKNOWN = "unknown_account"  #: no such account is stored
_SET_ASIDE = "set_aside"  # by an operator, by a lost key, or because the account uses no OAuth


def failure_of(account: Account, *, now: datetime, requested: bool = False) -> CachedFailure | None:
    """Why a request to Microsoft would be wrong now; ``requested`` if the caller has just made one."""
    failure = account.failure
    kind, code = (failure.kind, failure.code) if failure else ("", "")
    match account.status:
        case Status.PAUSED | Status.DISCONNECTED | Status.UNREADABLE:
            return inactive(account.status, now=now)
        case Status.REAUTH_REQUIRED | Status.BLOCKED:
            return CachedFailure(kind=kind, code=code, claims=account.claims, noted_at=now)
        case Status.ACTIVE:
            if not account.use_oauth:
                return CachedFailure(kind=_SET_ASIDE, code="password", noted_at=now)
        case unreachable:
            assert_never(unreachable)
    due_at = account.due_at
    if failure is None or account.lease_until or due_at is None or (due_at <= now and not requested):
        return None
    return CachedFailure(kind=kind, code=code, retry_at=due_at, noted_at=now)


def inactive(status: Status, *, now: datetime) -> CachedFailure | None:
    """The failure of an account in a state in which it is never refreshed; None for the other states."""
    return None if status in REFRESHABLE else CachedFailure(kind=_SET_ASIDE, code=status.value, noted_at=now)


def of_process(error: WorkerError | None, *, now: datetime) -> CachedFailure | None:
    """The error that kept this process from a request, as a short-lived failure; None if time does not end it."""
    match error:
        case ClientMisconfigured():
            until = now + PROCESS_LIFETIME
            return CachedFailure(kind=Kind.MISCONFIGURED, code=error.reason, retry_at=until, noted_at=now)
        case BackingOff():
            until = now + min(error.retry_after, PROCESS_LIFETIME)
            return CachedFailure(kind=Kind.TRANSIENT, code=error.reason, retry_at=until, noted_at=now)
        case _:
            return None


def rejected(*, until: datetime, now: datetime) -> CachedFailure:
    """Another refresh would not help: the last one had the same reason, and was not long ago."""
    return CachedFailure(kind=REJECTED, code=REJECTED, retry_at=until, noted_at=now)


def unknown(account: AccountId, *, now: datetime) -> CacheEntry:
    """An entry that says that no such account is stored. Any other entry replaces it."""
    failure = CachedFailure(kind=UNKNOWN, code=UNKNOWN, retry_at=now + PROCESS_LIFETIME, noted_at=now)
    return CacheEntry(account_id=account, email="", status=Status.DISCONNECTED, version=0, failure=failure)


def applies(failure: CachedFailure | None, requirement: TokenRequirement, *, now: datetime) -> bool:
    """Whether the failure concerns this requirement, and its time is not over."""
    if failure is None or (failure.kind == REJECTED and requirement.newer_than is None):
        return False
    return failure.retry_at is None or now < failure.retry_at


def is_trusted(failure: CachedFailure | None, requirement: TokenRequirement, *, now: datetime) -> bool:
    """Whether the failure applies, and was noted so recently that Postgres need not be read."""
    return failure is not None and applies(failure, requirement, now=now) and now - failure.noted_at < LIFETIME


def as_error(entry: CacheEntry, email: str, *, now: datetime) -> WorkerError:  # noqa: PLR0911 - one per state
    """The error for an account without a usable token. ``email`` is the address as the caller has given it."""
    failure = entry.failure
    if failure is None:
        return Unavailable(f"{email}: Microsoft has given no usable token")
    if failure.kind == UNKNOWN:
        return UnknownAccount(email)
    left = max(timedelta(0), (failure.retry_at or now) - now)
    if failure.kind == REJECTED:
        return TokenRefused(email, left)
    match entry.status:
        case Status.PAUSED | Status.DISCONNECTED | Status.UNREADABLE:
            return AccountInactive(email, entry.status.value)
        case Status.REAUTH_REQUIRED:
            return NeedsUser(email, failure.code, failure.claims)
        case Status.BLOCKED:
            return BlockedByAdmin(email, failure.code)
        case Status.ACTIVE:
            if not entry.use_oauth:
                return AccountInactive(email, "not using OAuth")
        case unreachable:
            assert_never(unreachable)
    if failure.kind == Kind.MISCONFIGURED:
        return ClientMisconfigured(email, entry.client, failure.code)
    return BackingOff(email, failure.code, left)
