"""The next hours of a fleet, minute by minute: which requests its schedule sends, and which accounts wait."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.domain.policy import LONG_OVERDUE

_EARLIEST, _LATEST = 0.5, 0.7  # of a lifetime: when a token is replaced, see RefreshPolicy
_LONG_OVERDUE = LONG_OVERDUE.total_seconds() / 60  # minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetAhead:
    """The schedule of a fleet: accounts by the minutes until they are due, and the mean lifetime of their tokens.

    ``daily`` are accounts that need a sign-in or an administrator, which are looked at once a day. ``grants_ending``
    counts grants by the hour in which they end without a sign-in.
    """

    due: Mapping[int, int]
    daily: Mapping[int, int]
    lifetime: float  # minutes
    grants_ending: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """``waiting`` accounts are due and not refreshed at its end; ``without_token`` of them have no live token."""

    requests: int
    waiting: int
    without_token: int


def simulate(
    fleet: FleetAhead, *, minutes: int, rate: float, outages: Sequence[tuple[int, int]] = (), added: int = 0
) -> list[Minute]:
    """Play the next minutes. ``rate``: requests per second. ``outages``: first minute and length; no request succeeds.

    ``added`` accounts without an access token join in the first minute.
    """
    arrivals = [0.0] * (minutes + 1)
    for due in (fleet.due, fleet.daily):
        for minute, accounts in due.items():
            if minute <= minutes:
                arrivals[max(0, minute)] += accounts
    daily_share = _share(sum(fleet.daily.values()), sum(fleet.due.values()))
    waiting: deque[_Cohort] = deque([_Cohort(0, float(added), has_token=False)] if added else [])
    played = []
    for now in range(minutes):
        if arrivals[now]:
            waiting.append(_Cohort(now, arrivals[now]))
        is_out = any(first <= now < first + length for first, length in outages)
        sent = _send(waiting, 0.0 if is_out else rate * 60)
        for cohort in sent:
            _return(cohort, arrivals, now, fleet.lifetime, 1 - daily_share)
        played.append(
            Minute(
                requests=round(sum(cohort.accounts for cohort in sent)),
                waiting=round(sum(cohort.accounts for cohort in waiting)),
                without_token=round(sum(cohort.without_token(now, fleet.lifetime) for cohort in waiting)),
            )
        )
    return played


@dataclass(slots=True)
class _Cohort:
    """Accounts that have become due in the same minute."""

    since: int
    accounts: float
    has_token: bool = True

    def without_token(self, now: int, lifetime: float) -> float:
        """They were due at 50 to 70 % of the lifetime, so the first token ends after another 30 % of it."""
        if not self.has_token:
            return self.accounts
        waited = (now - self.since) / lifetime
        return self.accounts * min(1.0, max(0.0, (waited - (1 - _LATEST)) / (_LATEST - _EARLIEST)))


def _send(waiting: deque[_Cohort], room: float) -> list[_Cohort]:
    """Take the longest overdue, as many as there is room for."""
    sent = []
    while waiting and room > 0:
        first = waiting[0]
        accounts = min(first.accounts, room)
        sent.append(_Cohort(first.since, accounts, first.has_token))
        first.accounts -= accounts
        room -= accounts
        if first.accounts <= 0:
            waiting.popleft()
    return sent


def _return(cohort: _Cohort, arrivals: list[float], now: int, lifetime: float, share: float) -> None:
    """Spread the next due times. Accounts that have waited for long, or are new, are spread over the whole cycle."""
    in_backlog = not cohort.has_token or now - cohort.since >= _LONG_OVERDUE
    weights = [_weight((minute + 0.5) / lifetime, in_backlog=in_backlog) for minute in range(round(lifetime * _LATEST))]
    total = sum(weights)
    if not total:  # tokens of a minute or two
        weights, total = [1.0], 1.0
    for minute, weight in enumerate(weights, start=now + 1):
        if minute < len(arrivals):
            arrivals[minute] += cohort.accounts * share * weight / total


def _weight(fraction: float, *, in_backlog: bool) -> float:
    """The density of the next due time after this fraction of the lifetime, see RefreshPolicy."""
    if fraction <= _EARLIEST:
        return 1.0 if in_backlog else 0.0
    left = max(0.0, _LATEST - fraction)
    return left / (_LATEST - _EARLIEST) if in_backlog else float(left > 0)


def _share(part: int, other: int) -> float:
    return part / (part + other) if part else 0.0
