"""The state of the fleet, as far as the stores know it, and the troubles in it that need an operator."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from worker.domain.breaker import Breaker
from worker.domain.clocks import TOLERANCE
from worker.domain.codes import hint
from worker.domain.duration import duration
from worker.domain.heartbeat import LiveProcess, Role
from worker.domain.pause import Pause

_OVERDUE = timedelta(minutes=5)
_EXPIRED_PERCENT = 1  # of the active accounts; fewer are troubles of single accounts
QUEUES = ("ondemand", "sweep", "refresh")  #: of the broker, as ``worker.broker`` declares them


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredState:
    """The part that is in Postgres. ``figures`` and ``codes`` are rows of ``db.figures``."""

    figures: Mapping[str, Any]
    codes: Sequence[Mapping[str, Any]]
    breakers: Sequence[Breaker]  # those in trouble
    pauses: Sequence[Pause]
    skew: timedelta  # of Postgres' clock; positive if it is ahead of this process


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveState:
    """The part that is in Redis."""

    in_outbox: int
    processes: Sequence[LiveProcess]
    since_sweep: timedelta | None  # None: for more than a day
    skew: timedelta  # of Redis' clock; positive if it is ahead of this process


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetState:
    """Each part is None while its source is unavailable; ``unavailable`` says why, by the name of the source."""

    at: datetime
    stored: StoredState | None
    live: LiveState | None
    queues: Mapping[str, int] | None
    key_ids: Sequence[str]  # of this process
    sweep_interval: timedelta
    unavailable: Mapping[str, str] = field(default_factory=dict)


def troubles(state: FleetState) -> list[str]:
    """A sentence for each trouble that needs an operator, the gravest first."""
    found = [f"{source} is unavailable: {reason}." for source, reason in state.unavailable.items()]
    if state.live:
        found += _of_processes(state, state.live)
    if state.stored:
        found += _of_accounts(state.stored, state.at)
    if state.live:
        found += _of_clocks(state, state.live)
    return found


def _of_processes(state: FleetState, live: LiveState) -> Iterator[str]:
    if live.in_outbox:
        yield (
            f"{live.in_outbox:,} results wait in the outbox until Postgres takes them. Do not flush Redis."
            if live.in_outbox > 1
            else "1 result waits in the outbox until Postgres takes it. Do not flush Redis."
        )
    workers = [each.heartbeat for each in live.processes if each.heartbeat.role is Role.WORKER]
    beats = [each for each in live.processes if each.heartbeat.role is Role.BEAT]
    if not beats:
        yield "No beat is alive, so nothing is refreshed on schedule. Start: celery -A worker beat"
    if not workers:
        yield "No worker is alive, so nothing is refreshed. Start: celery -A worker worker"
    unserved = [queue for queue in QUEUES if not any(queue in worker.queues for worker in workers)]
    if workers and unserved:
        names = ",".join(unserved)
        yield f"No worker takes tasks from {names}. Start: celery -A worker worker -Q {names}"
    known = {*state.key_ids, *(key for worker in workers for key in worker.key_ids)}
    for worker in workers:
        if missing := sorted(known.difference(worker.key_ids)):
            yield f"{worker.name} lacks the key {', '.join(missing)}. Set all of WORKER_ENCRYPTION_KEYS there."
    if (
        beats
        and workers
        and not unserved
        and (live.since_sweep is None or live.since_sweep > sweep_limit(state.sweep_interval))
    ):
        since = f"for {duration(live.since_sweep)}" if live.since_sweep else "for more than a day"
        yield f"No sweep has ended {since}. Look at the logs of beat and workers."


def explain(breaker: Breaker, at: datetime) -> str:
    """The failure of its refreshes, until when they wait, and the meaning of the code."""
    return f"{breaker.kind} ({breaker.code}), {state_of(breaker, at)}. {hint(breaker.code or '')}"


def state_of(breaker: Breaker, at: datetime) -> str:
    """In words."""
    if breaker.is_clean:
        return "closed"
    if breaker.opened_at is None or breaker.is_suspected:
        return "suspected"
    if breaker.open_until is None:
        return "being tried"
    left = breaker.open_until - at
    return f"not used for {duration(left)}" if left > timedelta(0) else "about to be tried again"


def sweep_limit(interval: timedelta) -> timedelta:
    """How long no sweep may end before beat and the workers must be looked at. ``interval``: between two sweeps."""
    return max(_OVERDUE, 3 * interval)


def _of_accounts(stored: StoredState, at: datetime) -> Iterator[str]:
    for breaker in stored.breakers:
        if breaker.failures:
            yield f"app registration {breaker.client}: {explain(breaker, at)}"
    figures = stored.figures
    oldest = figures["oldest_due_at"]
    if oldest and at - oldest > _OVERDUE:
        yield f"{figures['due']:,} accounts are due, the oldest for {duration(at - oldest)}."
    active, expired = figures["accounts"].get("active", 0), figures["expired"]
    if expired > 1 and expired * 100 > active * _EXPIRED_PERCENT:
        yield f"{expired:,} of {active:,} active accounts have no access token that lives."
    if figures["unconfigured"]:
        yield f"{figures['unconfigured']:,} accounts belong to an app registration that is not configured here."


def _of_clocks(state: FleetState, live: LiveState) -> Iterator[str]:
    """Against the clock of Redis, and of Postgres for this process: due times and leases are compared."""
    for process in live.processes:
        if abs(process.skew) > TOLERANCE:
            yield _clock(process.heartbeat.name, process.skew)
    if state.stored and abs(live.skew - state.stored.skew) > TOLERANCE:
        yield _clock("Postgres, compared with Redis,", state.stored.skew - live.skew)
    if abs(live.skew) > TOLERANCE:
        yield _clock("this machine, compared with Redis,", -live.skew)


def _clock(of: str, skew: timedelta) -> str:
    way = "ahead" if skew > timedelta(0) else "behind"
    return f"The clock of {of} is {duration(abs(skew))} {way}. Synchronise the clocks (NTP)."
