"""Part 5: a day of a large fleet on a virtual clock, by the product's own policy, breaker and rate."""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from worker.domain.breaker import Breaker, judge
from worker.domain.credential import AccountId, Claim, LeaseId, Sealed, Secret, Status
from worker.domain.outcome import Outcome, Refreshed, Scope, Transient
from worker.domain.policy import LONG_OVERDUE, RefreshPolicy

BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
SWEEP = timedelta(seconds=5)
BATCH = 250
LIFETIME = timedelta(hours=1)  # the hardest case: if lifetimes differ they spread the fleet by themselves
MINUTE = timedelta(minutes=1)
_AFTERMATH = timedelta(hours=4)

_TOKEN = Secret("")
_SEALED = Sealed(b"")
_LEASE = LeaseId(UUID(int=0))
_GROUP = 50  # answers that are judged together


@dataclass(slots=True)
class Mailbox:
    """What is known of one account."""

    id: AccountId
    version: int = 1
    refreshed: bool = False


@dataclass(slots=True)
class Fleet:
    """Accounts by due time, and what was asked in each minute."""

    rate: int
    is_away: Callable[[datetime], bool]
    policy: RefreshPolicy = field(default_factory=RefreshPolicy)
    breaker: Breaker = field(default_factory=lambda: Breaker(client="default"))
    due: list[tuple[datetime, int, Mailbox]] = field(default_factory=list)
    asked: list[int] = field(default_factory=lambda: [0] * (2 * 24 * 60))
    most_at_once: int = 0  # questions within one second
    _seconds: deque[datetime] = field(default_factory=deque)
    _number: int = 0

    def add(self, mailbox: Mailbox, due_at: datetime) -> None:
        self._number += 1
        heapq.heappush(self.due, (due_at, self._number, mailbox))

    def overdue(self, now: datetime) -> int:
        """How many should have been refreshed a sweep ago."""
        return sum(due_at <= now - SWEEP for due_at, _, _ in self.due) if self.due[0][0] <= now - SWEEP else 0

    def sweep(self, now: datetime) -> int:
        """What beat and the workers do until the next sweep. Returns how many were asked."""
        room = int(self.rate * SWEEP.total_seconds())
        done = 0
        while done < room and self.due and self.due[0][0] <= now:
            if (admitted := self.breaker.allowance(min(BATCH, room - done), now=now)) == 0:
                break
            canary = self.breaker.open_until is not None
            done += self._batch(now, admitted, done, canary=canary)
            if admitted < BATCH and self.breaker.closed_at is not None:
                break  # the ramp's next step is for the next sweep
        return done

    def _batch(self, now: datetime, admitted: int, before: int, *, canary: bool) -> int:
        claimed: list[tuple[datetime, Mailbox]] = []
        while len(claimed) < admitted and self.due and self.due[0][0] <= now:
            due_at, _, mailbox = heapq.heappop(self.due)
            claimed.append((due_at, mailbox))
        full = bool(self.due) and self.due[0][0] <= now  # there is more to do than fits
        judged = self.breaker.probing() if canary else self.breaker
        for start in range(0, len(claimed), _GROUP):
            group = claimed[start : start + _GROUP]
            answers = [
                self._ask(mailbox, due_at, now + timedelta(seconds=(before + start + at) / self.rate), full=full)
                for at, (due_at, mailbox) in enumerate(group)
            ]
            judged = judge(judged, answers, now=now)
            if judged.open_until is not None:
                for due_at, mailbox in claimed[start + _GROUP :]:
                    self.add(mailbox, due_at)
                claimed = claimed[: start + _GROUP]
                break
        self.breaker = judged
        return len(claimed)

    def _ask(self, mailbox: Mailbox, due_at: datetime, at: datetime, *, full: bool) -> tuple[AccountId, Outcome]:
        self._count(at)
        outcome: Outcome = (
            Transient(code="http_503", scope=Scope.SERVICE)
            if self.is_away(at)
            else Refreshed(access_token=_TOKEN, refresh_token=None, obtained_at=at, expires_at=at + LIFETIME)
        )
        out_of_step = not mailbox.refreshed or due_at < at - LONG_OVERDUE
        claim = _claim(mailbox, at, in_crowd=full and out_of_step)
        transition = self.policy.plan(claim, outcome, now=at)
        if transition.refreshed:
            mailbox.version, mailbox.refreshed = mailbox.version + 1, True
        self.add(mailbox, transition.due_at)
        return mailbox.id, outcome

    def _count(self, at: datetime) -> None:
        self.asked[(at - BEGIN) // MINUTE] += 1
        self._seconds.append(at)
        while self._seconds[0] <= at - timedelta(seconds=1):
            self._seconds.popleft()
        self.most_at_once = max(self.most_at_once, len(self._seconds))


def _claim(mailbox: Mailbox, now: datetime, *, in_crowd: bool) -> Claim:
    return Claim(
        account_id=mailbox.id,
        email="",
        client="default",
        authority=None,
        scopes=(),
        refresh_token=_SEALED,
        version=mailbox.version,
        lease_id=_LEASE,
        lease_until=now,
        status=Status.ACTIVE,
        failure=None,
        in_crowd=in_crowd,
    )


@dataclass(frozen=True, slots=True)
class Day:
    """The questions of each minute of a day that began with an import."""

    accounts: int
    rate: int
    per_minute: Sequence[int]
    most_at_once: int
    first_cycle: int  # minutes

    @property
    def peak_to_mean(self) -> float:
        after = self.per_minute[self.first_cycle :]
        return max(after) / (sum(after) / len(after))


def day(accounts: int, rate: int) -> Day:
    """All accounts imported within the first minute, with nothing but their refresh tokens."""
    fleet = _imported(accounts, rate, is_away=lambda _: False)
    _run(fleet, BEGIN, lambda at: at >= BEGIN + DAY)
    first_cycle = int(fleet.policy.latest * LIFETIME / MINUTE) + -(-accounts // rate // 60) + 1
    return Day(accounts, rate, fleet.asked[: 24 * 60], fleet.most_at_once, first_cycle)


@dataclass(frozen=True, slots=True)
class Outage:
    """How a fleet came back."""

    backlog: int
    noticed: timedelta  # from the end of the outage to the first answer
    healthy: timedelta  # from then until nobody is overdue
    minimum: timedelta  # the same at full rate from the first moment on
    most_at_once: int
    peak_to_mean: float  # of the hours after that

    @property
    def ratio(self) -> float:
        return self.healthy / self.minimum


def outage(accounts: int, rate: int, span: timedelta = timedelta(hours=2)) -> Outage:
    """Microsoft fails for everybody, then answers again."""
    begin = BEGIN + timedelta(hours=2)
    end = begin + span
    fleet = _imported(accounts, rate, is_away=lambda at: begin <= at < end)
    now = _run(fleet, BEGIN, lambda at: at >= end)
    backlog = fleet.overdue(now)
    ideal = Fleet(rate=rate, is_away=lambda _: False, due=[(at, number, replace(box)) for at, number, box in fleet.due])
    noticed = _run(fleet, now, lambda _: fleet.breaker.open_until is None)
    healthy = _run(fleet, noticed, lambda at: not fleet.overdue(at))
    _run(fleet, healthy, lambda at: at >= healthy + _AFTERMATH)
    first = (healthy - BEGIN) // MINUTE + 1
    after = fleet.asked[first : first + _AFTERMATH // MINUTE - 1]
    return Outage(
        backlog=backlog,
        noticed=noticed - end,
        healthy=healthy - noticed,
        minimum=_run(ideal, noticed, lambda at: not ideal.overdue(at)) - noticed,
        most_at_once=fleet.most_at_once,
        peak_to_mean=max(after) / (sum(after) / len(after)),
    )


def _run(fleet: Fleet, now: datetime, until: Callable[[datetime], bool]) -> datetime:
    """Sweep after sweep, and once at least."""
    while True:
        fleet.sweep(now)
        now += SWEEP
        if until(now):
            return now


def _imported(accounts: int, rate: int, *, is_away: Callable[[datetime], bool]) -> Fleet:
    fleet = Fleet(rate=rate, is_away=is_away)
    for number in range(accounts):
        mailbox = Mailbox(AccountId(UUID(int=number * 0x9E3779B97F4A7C15 % 2**128)))
        fleet.add(mailbox, BEGIN + MINUTE * number / accounts)
    return fleet
