"""A circuit breaker per app registration. Pure: what answers and the passage of time make of it.

An answer about the app registration or about Microsoft says nothing about its account. After a few of those in a row,
for different accounts, more requests are pointless or harmful: the breaker opens and the accounts stay as they are. One
probe at a time (half-open) finds out when the cause has ended. Then requests come back in a ramp, not as a wave.

A few accounts may get such answers for a reason of their own. So a breaker is *suspected* first, if there is a healthy
account: requests wait until that one has been refreshed, which costs a moment, or has failed as well.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from worker.domain.account import AccountId
from worker.domain.outcome import Kind, Outcome, Refreshed, Throttled, Transient

FAILING_ACCOUNTS = 3  #: distinct accounts in a row, without a good answer in between, that open a breaker
PROBE_LEASE = timedelta(seconds=60)  #: how long a probe may take before another is sent
SIGN_IN_INTERVAL = timedelta(seconds=10)  #: an open breaker lets one new sign-in through per interval

_REMEMBERED = 10  # failing accounts; the tenants of these are avoided by the next probe
_FIRST_WAIT = timedelta(seconds=10)
_WAIT_CAP = timedelta(minutes=5)  # a person replaces a secret, and then wants to see it work
_RAMP_START = 10  # requests, doubling
_RAMP_STEP = timedelta(seconds=5)
_RAMP = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An outcome as evidence. ``was_failing``: the account's last refresh has failed too, so that it may be the cause
    itself."""

    account: AccountId
    outcome: Outcome
    requested_at: datetime
    was_failing: bool = False

    @property
    def is_bad(self) -> bool:
        """Whether it speaks against the app registration or Microsoft."""
        return self.outcome.scope.is_about_registration

    @property
    def is_good(self) -> bool:
        """Whether it shows that app registration and Microsoft work. The refusal of an account that was refused before
        does not: it may come before the credential is looked at."""
        return not self.is_bad and (isinstance(self.outcome, Refreshed) or not self.was_failing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Closed while ``opened_at`` is None. Half-open if ``open_until`` alone is None."""

    client: str
    failing_accounts: tuple[AccountId, ...] = ()  # distinct, the last ones
    kind: Kind | None = None  # of the last failure
    code: str | None = None
    failures: int = 0  # times that it opened, or a probe failed, since it was closed; 0 while it is suspected
    opened_at: datetime | None = None
    open_until: datetime | None = None  # a probe may be sent from then on
    closed_at: datetime | None = None  # None unless it was open once

    @property
    def is_clean(self) -> bool:
        """Whether a good answer would change nothing."""
        return not self.failing_accounts and self.opened_at is None

    @property
    def is_suspected(self) -> bool:
        """Whether requests wait for the answer to a healthy account."""
        return self.opened_at is not None and self.failures == 0

    @property
    def admits_sign_ins(self) -> bool:
        """Whether a new sign-in may be refreshed while it is open. A Retry-After counts for new sign-ins, too."""
        return self.is_suspected or self.kind != Kind.THROTTLED

    def allowance(self, wanted: int, *, now: datetime) -> int:
        """How many of ``wanted`` requests for due accounts may be sent now: all, those of the ramp, one probe, or
        none."""
        if self.open_until is not None:
            return 0 if now < self.open_until else min(wanted, 1)
        if self.closed_at is None or now >= self.closed_at + _RAMP:
            return wanted
        return min(wanted, _RAMP_START << max(0, (now - self.closed_at) // _RAMP_STEP))

    def half_open(self) -> "Breaker":
        """As the sender of the probe judges it: not open, and one failure away from it."""
        return replace(self, open_until=None)


def judge(breaker: Breaker, answers: Iterable[Answer], *, now: datetime, can_ask: bool = False) -> Breaker:
    """The breaker after these answers, which came at about the same time.

    ``can_ask``: there is a healthy account to be asked before the breaker counts as open. Then an account that was
    failing before is no evidence, and one refusal of the app registration is enough to ask.
    """
    given = list(answers)
    if breaker.open_until is not None:
        return _while_open(breaker, given, now=now)
    is_half_open = breaker.opened_at is not None
    if any(answer.is_good or (is_half_open and not answer.is_bad) for answer in given):
        return _closed(breaker, now=now)
    bad = [answer for answer in given if answer.is_bad]
    evidence = [answer for answer in bad if is_half_open or not (can_ask and answer.was_failing)]
    if not evidence:
        return breaker
    after = _blamed(breaker, evidence)
    if is_half_open:
        return _opened(after, evidence, now=now)
    if can_ask:
        return replace(after, opened_at=now, open_until=now) if _is_worth_asking(after) else after
    return _opened(after, evidence, now=now) if len(after.failing_accounts) >= FAILING_ACCOUNTS else after


def _while_open(breaker: Breaker, answers: Iterable[Answer], *, now: datetime) -> Breaker:
    """An open breaker changes by its probe (see ``half_open``). Of other answers, a good one to a request that was sent
    since it opened closes it, and the Retry-After of an earlier request counts."""
    assert breaker.opened_at is not None
    assert breaker.open_until is not None
    since, late = list[Answer](), list[Answer]()
    for answer in answers:
        (since if answer.requested_at > breaker.opened_at else late).append(answer)
    if any(isinstance(answer.outcome, Refreshed) for answer in since):
        return _closed(breaker, now=now)
    if breaker.is_suspected:
        return breaker
    return replace(breaker, open_until=max([breaker.open_until, *(now + wait for wait in _waits(late))]))


def _blamed(breaker: Breaker, evidence: list[Answer]) -> Breaker:
    failing = dict.fromkeys([*breaker.failing_accounts, *(answer.account for answer in evidence)])
    last = evidence[-1].outcome
    return replace(breaker, failing_accounts=tuple(failing)[-_REMEMBERED:], kind=last.kind, code=last.code)


def _is_worth_asking(breaker: Breaker) -> bool:
    """A refusal of the app registration is rarely an accident; overload and outages of a moment are frequent."""
    return breaker.kind == Kind.MISCONFIGURED or len(breaker.failing_accounts) >= FAILING_ACCOUNTS


def _closed(breaker: Breaker, *, now: datetime) -> Breaker:
    if breaker.is_clean and not breaker.failures:
        return breaker
    was_open = breaker.failures > 0
    return Breaker(client=breaker.client, closed_at=now if was_open else breaker.closed_at)


def _opened(breaker: Breaker, evidence: Iterable[Answer], *, now: datetime) -> Breaker:
    own = min(_WAIT_CAP, _FIRST_WAIT * (1 << min(breaker.failures, 10)))
    until = now + max([own, *_waits(evidence)])
    return replace(breaker, failures=breaker.failures + 1, opened_at=breaker.opened_at or now, open_until=until)


def _waits(answers: Iterable[Answer]) -> list[timedelta]:
    """The values of Retry-After: they are for all workers."""
    outcomes = [answer.outcome for answer in answers]
    given = [outcome.retry_after for outcome in outcomes if isinstance(outcome, Throttled | Transient)]
    return [wait for wait in given if wait is not None]
