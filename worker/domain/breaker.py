"""A circuit breaker per app registration. Pure: what answers and the passage of time make of it.

An answer about our app or about Microsoft says nothing about the account it was given to. A few of those in a row, for
different accounts, and asking for the others is pointless or harmful: the breaker opens, the accounts stay as they
are, one canary at a time finds out when it is over, and then the questions come back in a ramp, not as a wave.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from worker.domain.account import AccountId
from worker.domain.outcome import Outcome, Scope, Throttled, Transient, kind

SUSPECTS = 3  #: distinct accounts in a row, without an answer in between that shows all is well
PROBE_LEASE = timedelta(seconds=60)  #: how long a canary may take before another is sent

_FIRST_WAIT = timedelta(seconds=10)
_LONGEST_WAIT = timedelta(minutes=5)  # a secret is mended by a person, who then wants to see it work
_RAMP_START = 10  # questions, doubling
_RAMP_STEP = timedelta(seconds=5)
_RAMP = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Closed while ``open_until`` is None."""

    client: str
    suspects: frozenset[AccountId] = frozenset()
    kind: str | None = None  # of the last suspicious outcome
    code: str | None = None
    failures: int = 0  # times it opened, or a canary failed, since it was closed
    open_until: datetime | None = None  # a canary may go from then on
    closed_at: datetime | None = None  # None unless it was open once

    @property
    def is_clean(self) -> bool:
        """Whether a good answer would change nothing."""
        return not self.suspects and self.open_until is None

    def allowance(self, wanted: int, *, now: datetime) -> int:
        """How many of ``wanted`` questions may be asked now: all, those of the ramp, one canary, or none."""
        if self.open_until is not None:
            return 0 if now < self.open_until else min(wanted, 1)
        if self.closed_at is None or now >= self.closed_at + _RAMP:
            return wanted
        return min(wanted, _RAMP_START << max(0, (now - self.closed_at) // _RAMP_STEP))

    def probing(self) -> "Breaker":
        """As seen by whoever sends the canary: not open, and one suspicious answer away from it."""
        return replace(self, open_until=None)


def judge(breaker: Breaker, answers: Iterable[tuple[AccountId, Outcome]], *, now: datetime) -> Breaker:
    """The breaker after these answers, which came at about the same time.

    While it is open it listens to its canary (see ``probing``). What else comes in was asked before it opened and is no
    news, except for a Retry-After.
    """
    given = list(answers)
    suspicious = [(account, outcome) for account, outcome in given if is_suspicious(outcome)]
    if breaker.open_until is not None:
        asked = [now + wait for wait in _waits(outcome for _, outcome in suspicious)]
        return replace(breaker, open_until=max([breaker.open_until, *asked]))
    if len(suspicious) < len(given):  # somebody got an answer about themselves: app and service work
        return breaker if breaker.is_clean and not breaker.failures else _closed(breaker, now=now)
    if not suspicious:
        return breaker
    last = suspicious[-1][1]
    suspects = dict.fromkeys([*breaker.suspects, *(account for account, _ in suspicious)])
    suspected = replace(
        breaker,
        suspects=frozenset(list(suspects)[-SUSPECTS:]),
        kind=kind(last),
        code=last.code,
    )
    if breaker.failures == 0 and len(suspected.suspects) < SUSPECTS:
        return suspected
    return _opened(suspected, [outcome for _, outcome in suspicious], now=now)


def is_suspicious(outcome: Outcome) -> bool:
    """Whether an outcome is about our app, Microsoft or the way there, rather than about the account."""
    return outcome.scope not in (Scope.ACCOUNT, Scope.TENANT)


def _closed(breaker: Breaker, *, now: datetime) -> Breaker:
    was_open = breaker.failures > 0
    return Breaker(client=breaker.client, closed_at=now if was_open else breaker.closed_at)


def _opened(breaker: Breaker, outcomes: Iterable[Outcome], *, now: datetime) -> Breaker:
    own = min(_LONGEST_WAIT, _FIRST_WAIT * (1 << min(breaker.failures, 10)))
    return replace(breaker, failures=breaker.failures + 1, open_until=now + max([own, *_waits(outcomes)]))


def _waits(outcomes: Iterable[Outcome]) -> list[timedelta]:
    """What Microsoft has asked for as Retry-After: it is for all workers."""
    asked = [outcome.retry_after for outcome in outcomes if isinstance(outcome, Throttled | Transient)]
    return [wait for wait in asked if wait is not None]
