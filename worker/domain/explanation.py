"""An account in plain words: what is the matter, who can help, and what happens next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from worker.domain.account import REFRESHABLE, Account, Failure, Status, grant_expires_at
from worker.domain.advice import advice
from worker.domain.breaker import Breaker
from worker.domain.codes import CodeRow, Verdict, explain, hint
from worker.domain.duration import duration
from worker.domain.fleet import state_of
from worker.domain.heartbeat import LiveProcess, Role
from worker.domain.outcome import Scope
from worker.domain.pause import Pause
from worker.domain.policy import STRIKES, STRIKES_OVER

_NO_TIME = timedelta(0)
_PASSING = {Verdict.THROTTLED, Verdict.TRANSIENT, Verdict.TRANSIENT_LONG}
_OF_USER = {Verdict.REAUTH, Verdict.UNPROVEN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """An account, and what else decides about its next refresh. None: not known, because Redis is away."""

    account: Account
    breaker: Breaker
    pauses: Sequence[Pause]  # that cover the account
    is_configured: bool  # whether this process knows the app registration
    throttled: timedelta | None  # its tenant, for so long
    is_pending: bool | None  # whether a result waits in the outbox
    processes: Sequence[LiveProcess] | None
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Sentences for an operator. ``next_at`` is when the worker asks Microsoft again; None: never, or at once."""

    state: str
    happened: Sequence[str]
    meaning: str | None
    who: str
    next: str
    next_at: datetime | None
    you_can: Sequence[str]
    user_reads: str | None


def explain_account(of: Circumstances) -> Explanation:
    """The account's life in plain words."""
    account = of.account
    due = account.due_at if _is_refreshed(account) else None
    return Explanation(
        state=_state(account, of.now),
        happened=list(_happened(account, of.now)),
        meaning=hint(account.failure.code) if account.failure else None,
        who=_who(of),
        next=" ".join(_next(of)),
        next_at=due if due and due > of.now else None,
        you_can=list(_you_can(of)),
        user_reads=_user_reads(account),
    )


def _is_refreshed(account: Account) -> bool:
    return account.status in REFRESHABLE and account.use_oauth


def _state(account: Account, now: datetime) -> str:
    match account.status:
        case Status.ACTIVE if not account.use_oauth:
            state = "uses a password, so the worker has nothing to refresh"
        case Status.ACTIVE if account.failure:
            state = "is active, and its last refresh failed"
        case Status.ACTIVE:
            state = "is active and well"
        case Status.REAUTH_REQUIRED:
            state = "needs its user to sign in again"
        case Status.BLOCKED:
            state = "is blocked by its tenant or by Microsoft"
        case Status.UNREADABLE:
            state = "is set aside, because its stored tokens cannot be used"
        case Status.PAUSED:
            state = "is paused by an operator"
        case Status.DISCONNECTED:
            state = "is disconnected, and its tokens are erased"
        case unreachable:
            assert_never(unreachable)
    return f"{account.email} {state}. {_token(account, now)}"


def _token(account: Account, now: datetime) -> str:
    if account.access_token is None or account.expires_at is None:
        return "It has no access token."
    left = account.expires_at - now
    if left > _NO_TIME:
        return f"Its access token lives for {duration(left)} more."
    return f"Its access token ended {duration(-left)} ago."


def _happened(account: Account, now: datetime) -> Iterator[str]:
    if account.signed_in_at:
        yield f"The user signed in {duration(now - account.signed_in_at)} ago."
    if account.last_refreshed_at:
        yield f"The last new token came {duration(now - account.last_refreshed_at)} ago."
    else:
        yield "No refresh has brought a token yet."
    if failure := account.failure:
        times = "once" if failure.count == 1 else f"{failure.count} times"
        first = f"{failure.since:%Y-%m-%d %H:%M:%S} UTC, {duration(now - failure.since)} ago"
        yield f"It has failed {times} in a row, first at {first}: {failure.kind} ({failure.code})."
    if account.failure is None and (end := grant_expires_at(account)) and end > now:
        yield f"The sign-in itself ends in {duration(end - now)}, if nothing renews it."


def _who(of: Circumstances) -> str:
    account = of.account
    match account.status:
        case Status.PAUSED | Status.UNREADABLE:
            return "You."
        case Status.DISCONNECTED:
            return "The user, by signing in again."
        case Status.ACTIVE | Status.REAUTH_REQUIRED | Status.BLOCKED:
            pass
        case unreachable:
            assert_never(unreachable)
    if not of.is_configured:
        return "You: the app registration is not in these settings."
    return _who_mends(account.failure) if account.failure else "Nobody needs to."


def _who_mends(failure: Failure) -> str:
    row = explain(failure.code)
    if row is None:
        return "Unknown, because the code is not listed."
    if row.verdict in _PASSING:
        return "You: it is the network of a worker." if row.scope.is_network else "Nobody needs to; it passes."
    if row.verdict in _OF_USER:
        return "The user, by signing in again."
    if row.verdict is Verdict.BLOCKED or row.scope in {Scope.TENANT, Scope.RESOURCE}:
        return "An administrator of the mailbox's tenant."
    return f"You: it is {'the app registration' if row.scope is Scope.CLIENT else 'what is stored of the account'}."


def _next(of: Circumstances) -> Iterator[str]:
    account, now = of.account, of.now
    if not _is_refreshed(account):
        yield "The worker does not refresh it."
        return
    if account.is_leased(now):
        yield "A worker is refreshing it at this moment."
        return
    yield _due(account, now)
    if of.breaker.failures:
        code, state = of.breaker.code, state_of(of.breaker, now)
        yield f"But its app registration {account.client} is in trouble ({code}): {state}, and then with one account."
    if of.throttled:
        yield f"But Microsoft throttles its tenant for {duration(of.throttled)} more."
    if of.is_pending:
        yield "But a result of it waits in the outbox until Postgres takes it."
    if of.processes is not None:
        roles = {process.heartbeat.role for process in of.processes}
        for role in (Role.BEAT, Role.WORKER):
            if role not in roles:
                yield f"But no {role} is alive."


def _due(account: Account, now: datetime) -> str:
    if account.due_at is None:
        return "The worker does not refresh it, because it has no due time."
    left = account.due_at - now
    asks = "The worker asks Microsoft again"
    if account.status is not Status.ACTIVE:
        asks = "Once a day the worker asks Microsoft again, next"
    if left <= _NO_TIME:
        return f"It is due now, for {duration(-left)}."
    return f"{asks} in {duration(left)}, at {account.due_at:%Y-%m-%d %H:%M:%S} UTC."


def _you_can(of: Circumstances) -> Iterator[str]:
    account = of.account
    refresh = f"token-worker refresh {account.email}"
    match account.status:
        case Status.PAUSED:
            yield f"Resume it: token-worker resume {account.email}"
            for pause in of.pauses:
                yield f"Resume all of {pause.group}, which you have paused: token-worker resume {_options(pause)}"
        case Status.DISCONNECTED:
            yield f"Have the user sign in, or connect it: token-worker connect {account.email}"
        case Status.UNREADABLE:
            yield f"Find out why: token-worker doctor. Then: token-worker resume {account.email}"
        case Status.ACTIVE | Status.REAUTH_REQUIRED | Status.BLOCKED:
            if account.failure is None:
                yield "If mail fails nevertheless, look at the mail server and the rights there."
            else:
                yield from _after_failure(account, account.failure, refresh)
        case unreachable:
            assert_never(unreachable)


def _after_failure(account: Account, failure: Failure, refresh: str) -> Iterator[str]:
    row = explain(failure.code)
    if row is not None and row.verdict in _OF_USER:
        yield "Ask the user to sign in again; the application stores the new sign-in."
        if row.verdict is Verdict.UNPROVEN and account.status is Status.ACTIVE:
            yield f"Wait: {STRIKES} such answers over {duration(STRIKES_OVER)} prove it."
    elif row is not None and _is_of_registration(row):
        yield f"Correct the app registration or its settings, then: token-worker breaker try {account.client}"
    yield f"Once the cause is gone, try it now: {refresh}"
    if row is None or row.verdict not in _PASSING:
        yield f"All accounts with this code: token-worker resume --code {failure.code}"


def _is_of_registration(row: CodeRow) -> bool:
    return row.scope is Scope.CLIENT and row.verdict not in _PASSING


def _options(pause: Pause) -> str:
    client = f"--client {pause.group.client}" if pause.group.client else ""
    domain = f"--domain {pause.group.domain}" if pause.group.domain else ""
    return " ".join(filter(None, (client, domain))) or "--all"


def _user_reads(account: Account) -> str | None:
    if account.failure is None:
        return None
    match account.status:
        case Status.REAUTH_REQUIRED:
            return advice("needs_user", account.failure.code, account.email)
        case Status.BLOCKED:
            return advice("blocked_by_admin", account.failure.code, account.email)
        case _:
            return None
