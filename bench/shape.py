"""Part 5: a day of a large fleet on a virtual clock, with the product's own policy, breaker and rate."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import le
from uuid import UUID

from worker.domain.account import AccountId, Lease, LeaseId, Status
from worker.domain.breaker import Answer, Breaker, judge
from worker.domain.outcome import Outcome, Refreshed, Scope, Transient
from worker.domain.policy import LONG_OVERDUE, RefreshPolicy
from worker.domain.token import Sealed, Secret

BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
SWEEP = timedelta(seconds=5)
BATCH = 250
LIFETIME = timedelta(hours=1)  # the same for all, which is the hardest case, because different ones spread the fleet
MINUTE = timedelta(minutes=1)
_AFTERMATH = timedelta(hours=4)

_TOKEN = Secret("")
_SEALED = Sealed(b"")
_LEASE = LeaseId(UUID(int=0))
_GROUP = 250  # outcomes that the breaker gets at a time at most, as in worker/identity/client.py


@dataclass(slots=True)
class Mailbox:
    """The state of one account."""

    id: AccountId
    version: int = 1
    refreshed: bool = False


@dataclass(slots=True)
class Fleet:
    """Accounts by due time, and the number of requests of each minute."""

    rate: int
    is_down: Callable[[datetime], bool]
    policy: RefreshPolicy = field(default_factory=RefreshPolicy)
    breaker: Breaker = field(default_factory=lambda: Breaker(client="default"))
    due: list[tuple[datetime, int, Mailbox]] = field(default_factory=list)
    requests: list[int] = field(default_factory=lambda: [0] * (2 * 24 * 60))
    _number: int = 0

    def add(self, mailbox: Mailbox, due_at: datetime) -> None:
        self._number += 1
        heapq.heappush(self.due, (due_at, self._number, mailbox))

    def recovered(self) -> "Fleet":
        """A copy whose outage has ended."""
        due = [(due_at, number, replace(mailbox)) for due_at, number, mailbox in self.due]
        return replace(self, is_down=lambda _: False, due=due, requests=self.requests.copy())

    def overdue(self, now: datetime) -> int:
        """The number of accounts that should have been refreshed a sweep ago."""
        return sum(due_at <= now - SWEEP for due_at, _, _ in self.due)

    def is_overdue(self, now: datetime) -> bool:
        """Whether there is any such account."""
        return self.due[0][0] <= now - SWEEP

    def sweep(self, now: datetime) -> int:
        """Do the work of beat and the workers until the next sweep. Returns the number of requests."""
        room = int(self.rate * SWEEP.total_seconds())
        done = 0
        while done < room and self.due and self.due[0][0] <= now:
            if (admitted := self.breaker.allowance(min(BATCH, room - done), now=now)) == 0:
                break
            probing = self.breaker.open_until is not None
            done += self._batch(now, admitted, done, probing=probing)
            if admitted < BATCH and self.breaker.closed_at is not None:
                break  # the next step of the ramp comes with the next sweep
        return done

    def _batch(self, now: datetime, admitted: int, before: int, *, probing: bool) -> int:
        leased: list[tuple[datetime, Mailbox]] = []
        while len(leased) < admitted and self.due and self.due[0][0] <= now:
            due_at, _, mailbox = heapq.heappop(self.due)
            leased.append((due_at, mailbox))
        full = bool(self.due) and self.due[0][0] <= now  # more accounts are due than the batch has places
        judged = self.breaker.half_open() if probing else self.breaker
        for start in range(0, len(leased), _GROUP):
            group = leased[start : start + _GROUP]
            outcomes = [
                self._request(mailbox, due_at, now + timedelta(seconds=(before + start + at) / self.rate), full=full)
                for at, (due_at, mailbox) in enumerate(group)
            ]
            judged = judge(judged, outcomes, now=now)
            if judged.open_until is not None:
                for due_at, mailbox in leased[start + _GROUP :]:
                    self.add(mailbox, due_at)
                leased = leased[: start + _GROUP]
                break
        self.breaker = judged
        return len(leased)

    def _request(self, mailbox: Mailbox, due_at: datetime, at: datetime, *, full: bool) -> Answer:
        self.requests[(at - BEGIN) // MINUTE] += 1
        outcome: Outcome = (
            Transient(code="http_503", scope=Scope.SERVICE)
            if self.is_down(at)
            else Refreshed(access_token=_TOKEN, refresh_token=None, obtained_at=at, expires_at=at + LIFETIME)
        )
        unscheduled = not mailbox.refreshed or due_at < at - LONG_OVERDUE
        lease = _lease(mailbox, at, in_backlog=full and unscheduled)
        update = self.policy.plan(lease, outcome, now=at)
        if isinstance(outcome, Refreshed):
            mailbox.version, mailbox.refreshed = mailbox.version + 1, True
        self.add(mailbox, update.due_at)
        return Answer(account=mailbox.id, outcome=outcome, requested_at=at)


def _lease(mailbox: Mailbox, now: datetime, *, in_backlog: bool) -> Lease:
    return Lease(
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
        in_backlog=in_backlog,
    )


@dataclass(frozen=True, slots=True)
class Day:
    """The requests of each minute of a day that began with an import."""

    accounts: int
    rate: int
    per_minute: Sequence[int]
    first_cycle: int  # minutes

    @property
    def peak_to_mean(self) -> float:
        after = self.per_minute[self.first_cycle :]
        return max(after) / (sum(after) / len(after))


def day(accounts: int, rate: int) -> Day:
    """All accounts are imported within the first minute, with refresh tokens only."""
    fleet = _imported(accounts, rate, is_down=lambda _: False)
    _run(fleet, BEGIN, partial(le, BEGIN + DAY))
    first_cycle = int(fleet.policy.latest * LIFETIME / MINUTE) + -(-accounts // rate // 60) + 1
    return Day(accounts, rate, fleet.requests[: 24 * 60], first_cycle)


@dataclass(frozen=True, slots=True)
class Outage:
    """The recovery of a fleet after an outage of two hours."""

    backlog: int
    noticed: timedelta  # from the end of the outage to the first success, the longest of several ends
    healthy: timedelta  # from then until no account is overdue
    minimum: timedelta  # the same at full rate from the beginning
    peak_to_mean: float  # of the hours after that

    @property
    def ratio(self) -> float:
        return self.healthy / self.minimum


def outage(accounts: int, rate: int, ends: int) -> Outage:
    """All requests fail for two hours, or half a minute longer, and so on.

    The first success depends on the time of the next probe. The rest of the recovery is the same, and simulated once.
    """
    begin = BEGIN + timedelta(hours=2)
    down = _imported(accounts, rate, is_down=lambda at: at >= begin)
    end = _run(down, BEGIN, partial(le, begin + timedelta(hours=2)))
    backlog, fleet, ideal = down.overdue(end), down.recovered(), down.recovered()
    ideal.breaker = Breaker(client="default")
    noticed = _notice(fleet, end)
    waits = [noticed - end]
    for number in range(1, ends):
        later = end + number * MINUTE / 2
        _run(down, later - MINUTE / 2, partial(le, later))
        waits.append(_notice(down.recovered(), later) - later)
    healthy = _run(fleet, noticed, lambda at: not fleet.is_overdue(at))
    return Outage(
        backlog=backlog,
        noticed=max(waits),
        healthy=healthy - noticed,
        minimum=_run(ideal, noticed, lambda at: not ideal.is_overdue(at)) - noticed,
        peak_to_mean=_aftermath(fleet, healthy),
    )


def _notice(fleet: Fleet, end: datetime) -> datetime:
    return _run(fleet, end, lambda _: fleet.breaker.open_until is None)


def _aftermath(fleet: Fleet, healthy: datetime) -> float:
    """The ratio of peak to mean in the hours after that."""
    _run(fleet, healthy, partial(le, healthy + _AFTERMATH))
    first = (healthy - BEGIN) // MINUTE + 1
    after = fleet.requests[first : first + _AFTERMATH // MINUTE - 1]
    return max(after) / (sum(after) / len(after))


def _run(fleet: Fleet, now: datetime, until: Callable[[datetime], bool]) -> datetime:
    """Sweep until the condition holds, and once at least. Returns the time."""
    while True:
        fleet.sweep(now)
        now += SWEEP
        if until(now):
            return now


def _imported(accounts: int, rate: int, *, is_down: Callable[[datetime], bool]) -> Fleet:
    fleet = Fleet(rate=rate, is_down=is_down)
    for number in range(accounts):
        mailbox = Mailbox(AccountId(UUID(int=number * 0x9E3779B97F4A7C15 % 2**128)))
        fleet.add(mailbox, BEGIN + MINUTE * number / accounts)
    return fleet
