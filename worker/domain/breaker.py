"""A circuit breaker per app registration. Pure: what answers and the passage of time make of it.

An answer about the app registration or about Microsoft says nothing about its account. After a few of those in a row,
for different accounts, more requests are pointless or harmful: the breaker opens and the accounts stay as they are. One
probe at a time (half-open) finds out when the cause has ended. Then requests come back in a ramp, not as a wave.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from worker.domain.account import AccountId
from worker.domain.outcome import Kind, Outcome, Throttled, Transient

FAILING_ACCOUNTS = 3  #: distinct accounts in a row, without a good answer in between, that open a breaker
PROBE_LEASE = timedelta(seconds=60)  #: how long a probe may take before another is sent

_FIRST_WAIT = timedelta(seconds=10)
_WAIT_CAP = timedelta(minutes=5)  # a person replaces a secret, and then wants to see it work
_RAMP_START = 10  # requests, doubling
_RAMP_STEP = timedelta(seconds=5)
_RAMP = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Closed while ``open_until`` is None."""

    client: str
    failing_accounts: frozenset[AccountId] = frozenset()
    kind: Kind | None = None  # of the last failure
    code: str | None = None
    failures: int = 0  # times that it opened, or a probe failed, since it was closed
    open_until: datetime | None = None  # a probe may be sent from then on
    closed_at: datetime | None = None  # None unless it was open once

    @property
    def is_clean(self) -> bool:
        """Whether a good answer would change nothing."""
        return not self.failing_accounts and self.open_until is None

    def allowance(self, wanted: int, *, now: datetime) -> int:
        """How many of ``wanted`` requests may be sent now: all, those of the ramp, one probe, or none."""
        if self.open_until is not None:
            return 0 if now < self.open_until else min(wanted, 1)
        if self.closed_at is None or now >= self.closed_at + _RAMP:
            return wanted
        return min(wanted, _RAMP_START << max(0, (now - self.closed_at) // _RAMP_STEP))

    def half_open(self) -> "Breaker":
        """As the sender of the probe judges it: not open, and one failure away from it."""
        return replace(self, open_until=None)


def judge(breaker: Breaker, answers: Iterable[tuple[AccountId, Outcome]], *, now: datetime) -> Breaker:
    """The breaker after these answers, which came at about the same time.

    An open breaker changes by its probe (see ``half_open``). Other answers belong to requests from before it opened, so
    only their Retry-After counts.
    """
    given = list(answers)
    bad = [(account, outcome) for account, outcome in given if outcome.scope.is_about_registration]
    if breaker.open_until is not None:
        waits = [now + wait for wait in _waits(outcome for _, outcome in bad)]
        return replace(breaker, open_until=max([breaker.open_until, *waits]))
    if len(bad) < len(given):  # an answer about an account: app registration and service work
        return breaker if breaker.is_clean and not breaker.failures else _closed(breaker, now=now)
    if not bad:
        return breaker
    last = bad[-1][1]
    failing = dict.fromkeys([*breaker.failing_accounts, *(account for account, _ in bad)])
    suspected = replace(
        breaker,
        failing_accounts=frozenset(list(failing)[-FAILING_ACCOUNTS:]),
        kind=last.kind,
        code=last.code,
    )
    if breaker.failures == 0 and len(suspected.failing_accounts) < FAILING_ACCOUNTS:
        return suspected
    return _opened(suspected, [outcome for _, outcome in bad], now=now)


def _closed(breaker: Breaker, *, now: datetime) -> Breaker:
    was_open = breaker.failures > 0
    return Breaker(client=breaker.client, closed_at=now if was_open else breaker.closed_at)


def _opened(breaker: Breaker, outcomes: Iterable[Outcome], *, now: datetime) -> Breaker:
    own = min(_WAIT_CAP, _FIRST_WAIT * (1 << min(breaker.failures, 10)))
    return replace(breaker, failures=breaker.failures + 1, open_until=now + max([own, *_waits(outcomes)]))


def _waits(outcomes: Iterable[Outcome]) -> list[timedelta]:
    """The values of Retry-After: they are for all workers."""
    given = [outcome.retry_after for outcome in outcomes if isinstance(outcome, Throttled | Transient)]
    return [wait for wait in given if wait is not None]
