"""Whether requests may be sent for an app registration: a breaker that all workers share, and one of this process."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeAlias

import structlog

from worker.db import breakers as rows
from worker.db.session import Database
from worker.domain.account import AccountId
from worker.domain.breaker import PROBE_LEASE, Breaker, judge
from worker.domain.errors import AccountError, BackingOff, ClientMisconfigured, Unavailable
from worker.domain.outcome import Kind, Outcome

log = structlog.get_logger(__name__)

Answers: TypeAlias = Sequence[tuple[AccountId, Outcome]]


@dataclass(slots=True)
class _State:
    """One app registration, as far as this process knows."""

    network: Breaker  # of this process: whether Microsoft can be reached from here
    shared: Breaker  # as Postgres has it, with this process's answers since
    is_clean_stored: bool = False  # whether a good answer would change nothing in Postgres
    probe_until: datetime | None = None  # this process's probe, and when another may be sent

    def judged(self, breaker: Breaker) -> Breaker:
        """The breaker as this process may judge it: the answer to its own probe decides."""
        is_own_probe = self.probe_until is not None and breaker.open_until == self.probe_until
        return breaker.half_open() if is_own_probe else breaker


class CircuitBreakers:
    """Thread-safe.

    Microsoft's answers update the breaker in Postgres. Network errors update the breaker of this process alone: one
    machine without a network must not stop the others.
    """

    def __init__(self, *, database: Database, utcnow: Callable[[], datetime]) -> None:
        self._database = database
        self._utcnow = utcnow
        self._states: dict[str, _State] = {}
        self._lock = threading.Lock()

    def admit(self, client: str, wanted: int) -> int:
        """How many of ``wanted`` requests may be sent; for an open breaker one probe, by the first process that asks.

        Call ``release_probe`` in the end. Raises Unavailable while Postgres is unavailable.
        """
        now, state = self._utcnow(), self._state(client)
        until = now + PROBE_LEASE
        with self._database.begin() as connection:
            stored = rows.find(connection, client)
            allowed = stored.allowance(state.network.allowance(wanted, now=now), now=now)
            is_probe = allowed > 0 and stored.open_until is not None
            if is_probe and not rows.take_probe(connection, client, until=until, now=now):
                stored, allowed, is_probe = rows.find(connection, client), 0, False
        with self._lock:
            if is_probe:
                stored = replace(stored, open_until=until)
                state.probe_until = until
            if allowed and state.network.open_until is not None:
                state.network = state.network.half_open()
            state.shared, state.is_clean_stored = stored, stored.is_clean
        return allowed

    def release_probe(self, client: str) -> None:
        """Let another process send the probe that was not sent after all, or found no way to Microsoft."""
        state = self._state(client)
        with self._lock:
            until, state.probe_until = state.probe_until, None
        if until is not None:
            with suppress(Unavailable), self._database.begin() as connection:
                rows.release_probe(connection, client, until=until, now=self._utcnow())

    def allowance(self, client: str, wanted: int) -> int:
        """How many of ``wanted`` requests ``admit`` would allow, as Postgres has it; takes no probe."""
        with self._database.begin() as connection:
            return rows.find(connection, client).allowance(wanted, now=self._utcnow())

    def is_open(self, client: str) -> bool:
        """Whether the breaker has opened since ``admit``: for the requests that still wait."""
        state = self._state(client)
        if state.shared.open_until is None and state.network.open_until is None:
            return False  # the usual case, for every account
        now = self._utcnow()
        return not all(state.judged(breaker).allowance(1, now=now) for breaker in (state.shared, state.network))

    def error(self, client: str, email: str) -> AccountError:
        """The error for an account that cannot be refreshed because of its app registration."""
        now, state = self._utcnow(), self._state(client)
        open_ones = [breaker for breaker in (state.shared, state.network) if breaker.open_until]
        breaker = max(open_ones, key=lambda each: each.open_until or now, default=Breaker(client=client))
        code = breaker.code or "unavailable"
        if breaker.kind == Kind.MISCONFIGURED:
            return ClientMisconfigured(email, client, code)
        return BackingOff(email, code, max((breaker.open_until or now) - now, timedelta(0)))

    def record(self, client: str, answers: Answers) -> None:
        """Let answers change this process's breakers at once, before they are written."""
        now, state, (unreached, answered) = self._utcnow(), self._state(client), _partition(answers)
        with self._lock:
            before = state.network
            if answered:
                state.network = Breaker(client=client)
                state.shared = judge(state.judged(state.shared), answered, now=now)
            elif unreached:
                state.network = judge(before, unreached, now=now)
            after = state.network
        _log_network(before, after)

    def share(self, client: str, answers: Answers) -> None:
        """Let answers change the breaker in Postgres, if they change it at all. Raises Unavailable."""
        state, (_, answered) = self._state(client), _partition(answers)
        if not answered or (
            state.is_clean_stored and not any(outcome.scope.is_about_registration for _, outcome in answered)
        ):
            return
        now = self._utcnow()
        with self._database.begin() as connection:
            stored = rows.lock(connection, client, now=now)
            judged = judge(state.judged(stored), answered, now=now)
            if judged != stored:
                rows.store(connection, judged, now=now)
        with self._lock:
            state.probe_until = None
            state.shared, state.is_clean_stored = judged, judged.is_clean
        _log_shared(stored, judged)

    def _state(self, client: str) -> _State:
        state = self._states.get(client)
        if state is None:
            new = _State(network=Breaker(client=client), shared=Breaker(client=client))
            state = self._states.setdefault(client, new)
        return state


def _partition(answers: Answers) -> tuple[Answers, Answers]:
    """Answers that never came, and those that did."""
    unreached = [answer for answer in answers if answer[1].scope.is_network]
    answered = [answer for answer in answers if not answer[1].scope.is_network] if unreached else answers
    return unreached, answered


def _log_network(before: Breaker, after: Breaker) -> None:
    """Once per loss: no other process knows of it, and Postgres has no record."""
    if after.failures and not before.failures:
        log.error("Microsoft cannot be reached from here", client=after.client, code=after.code)
    elif before.failures and not after.failures:
        log.info("Microsoft can be reached again", client=after.client)


def _log_shared(before: Breaker, after: Breaker) -> None:
    if after.failures > before.failures:
        log.error("App registration is not usable", client=after.client, outcome=after.kind, code=after.code)
    elif before.failures and not after.failures:
        log.info("App registration is usable again", client=after.client)
