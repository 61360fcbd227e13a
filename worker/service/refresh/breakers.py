"""Whether requests may be sent for an app registration: a breaker that all workers share, and one of this process."""

import enum
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias

import structlog
from sqlalchemy import Connection

from worker.db import breakers as rows
from worker.db import probes
from worker.db.session import Database
from worker.domain.account import Account
from worker.domain.breaker import PROBE_LEASE, SIGN_IN_INTERVAL, Answer, Breaker, judge
from worker.domain.errors import AccountError, BackingOff, ClientMisconfigured, Unavailable
from worker.domain.outcome import Kind

log = structlog.get_logger(__name__)

Answers: TypeAlias = Sequence[Answer]


class Accounts(enum.Enum):
    """The accounts that an Admission is for."""

    DUE = enum.auto()
    PROBE = enum.auto()  #: a healthy account, due or not
    SIGNED_IN = enum.auto()  #: an account whose user has signed in since the breaker opened


class Admission(NamedTuple):
    """How many requests may be sent, for which accounts, and the breaker that admits them."""

    requests: int
    accounts: Accounts
    breaker: Breaker


@dataclass(slots=True)
class _State:
    """One app registration, as far as this process knows."""

    network: Breaker  # of this process: whether Microsoft can be reached from here
    shared: Breaker  # as Postgres has it, with this process's answers since
    admitted_at: datetime | None = None  # when the breaker had opened that has admitted requests all the same
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

    def admit(
        self, client: str, wanted: int, *, account: Account | None = None, is_operator: bool = False
    ) -> Admission:
        """How many of ``wanted`` requests may be sent. An open breaker lets one probe through, by the first process
        that asks, and now and then a new sign-in.

        ``account``: the one that the request is for. A failing account is a probe only if an operator requests it.
        Call ``release_probe`` in the end. Raises Unavailable while Postgres is unavailable.
        """
        now, state = self._utcnow(), self._state(client)
        reachable = state.network.allowance(max(wanted, 1), now=now)
        with self._database.begin() as connection:
            stored = rows.find(connection, client)
            if stored.open_until is None:
                group = Accounts.DUE if state.network.open_until is None else Accounts.PROBE
                admission = Admission(stored.allowance(min(wanted, reachable), now=now), group, stored)
            else:
                may_probe = account is None or account.failure is None or is_operator
                admission = (
                    self._exception(connection, stored, account, may_probe=may_probe)
                    if reachable
                    else Admission(0, Accounts.DUE, stored)
                )
        with self._lock:
            if admission.accounts is Accounts.PROBE:
                state.probe_until = admission.breaker.open_until
            if admission.requests and state.network.open_until is not None:
                state.network = state.network.half_open()
            state.shared, state.is_clean_stored = admission.breaker, admission.breaker.is_clean
            state.admitted_at = admission.breaker.opened_at
        return admission

    def _exception(
        self, connection: Connection, breaker: Breaker, account: Account | None, *, may_probe: bool
    ) -> Admission:
        """The request that an open breaker lets through, if any."""
        now = self._utcnow()
        until = now + PROBE_LEASE
        if may_probe and rows.take_probe(connection, breaker.client, until=until, now=now):
            return Admission(1, Accounts.PROBE, replace(breaker, open_until=until))
        if self._has_sign_in(connection, breaker, account) and rows.admit_sign_in(
            connection, breaker.client, interval=SIGN_IN_INTERVAL, now=now
        ):
            return Admission(1, Accounts.SIGNED_IN, breaker)
        return Admission(0, Accounts.DUE, breaker)

    def _has_sign_in(self, connection: Connection, breaker: Breaker, account: Account | None = None) -> bool:
        """Whether this account, or any, waits for its first refresh since its user has signed in, and may have it."""
        since = breaker.opened_at
        if since is None or not breaker.admits_sign_ins:
            return False
        if account is None:
            return probes.has_sign_in(connection, client=breaker.client, since=since, now=self._utcnow())
        return account.failure is None and account.signed_in_at is not None and account.signed_in_at > since

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
        now = self._utcnow()
        with self._database.begin() as connection:
            breaker = rows.find(connection, client)
            if breaker.open_until is None:
                return breaker.allowance(wanted, now=now)
            if breaker.open_until > now:
                return int(self._has_sign_in(connection, breaker))
            failing = breaker.failing_accounts
            return int(wanted > 0 or probes.has_probe(connection, client=client, failing=failing, now=now))

    def is_suspected(self, client: str) -> bool:
        """Whether a healthy account is to be refreshed before anything else."""
        return self._state(client).shared.is_suspected

    def is_open(self, client: str) -> bool:
        """Whether the breaker has opened since ``admit``: for the requests that still wait."""
        state = self._state(client)
        if state.shared.opened_at not in (None, state.admitted_at):
            return True
        return state.network.open_until is not None and not state.network.allowance(1, now=self._utcnow())

    def error(self, client: str, email: str) -> AccountError:
        """The error for an account that cannot be refreshed because of its app registration."""
        now, state = self._utcnow(), self._state(client)
        open_ones = [breaker for breaker in (state.shared, state.network) if breaker.open_until]
        breaker = max(open_ones, key=lambda each: each.open_until or now, default=Breaker(client=client))
        code = breaker.code or "unavailable"
        if breaker.kind == Kind.MISCONFIGURED and not breaker.is_suspected:
            return ClientMisconfigured(email, client, code)
        return BackingOff(email, code, max((breaker.open_until or now) - now, timedelta(0)))

    def record(self, client: str, answers: Answers) -> None:
        """Let answers change this process's breakers at once, before they are written."""
        now, state, (unreached, answered) = self._utcnow(), self._state(client), _partition(answers)
        with self._lock:
            before = state.network
            if answered:
                state.network = Breaker(client=client)
                state.shared = judge(state.judged(state.shared), answered, now=now, can_ask=True)
            elif unreached:
                is_open = before.opened_at is not None
                evidence = [answer for answer in unreached if is_open or not answer.was_failing]
                state.network = judge(before, evidence, now=now)
            after = state.network
        _log_network(before, after)

    def share(self, client: str, answers: Answers) -> None:
        """Let answers change the breaker in Postgres, if they change it at all. Raises Unavailable."""
        state, (_, answered) = self._state(client), _partition(answers)
        if not answered or (state.is_clean_stored and not any(answer.is_bad for answer in answered)):
            return
        now = self._utcnow()
        with self._database.begin() as connection:
            stored = rows.lock(connection, client, now=now)
            known = state.judged(stored)
            can_ask = known.opened_at is None and self._can_ask(connection, known, answered)
            judged = judge(known, answered, now=now, can_ask=can_ask)
            if judged != stored:
                rows.store(connection, judged, now=now)
        with self._lock:
            state.probe_until = None
            state.shared, state.is_clean_stored = judged, judged.is_clean
        _log_shared(stored, judged)

    def _can_ask(self, connection: Connection, breaker: Breaker, answers: Answers) -> bool:
        """Whether an account may show that the failing ones are to blame themselves."""
        failing = [*breaker.failing_accounts, *(answer.account for answer in answers)]
        return not any(answer.is_good for answer in answers) and probes.has_probe(
            connection, client=breaker.client, failing=failing, now=self._utcnow()
        )

    def _state(self, client: str) -> _State:
        state = self._states.get(client)
        if state is None:
            new = _State(network=Breaker(client=client), shared=Breaker(client=client))
            state = self._states.setdefault(client, new)
        return state


def _partition(answers: Answers) -> tuple[Answers, Answers]:
    """Answers that never came, and those that did."""
    unreached = [answer for answer in answers if answer.outcome.scope.is_network]
    answered = [answer for answer in answers if not answer.outcome.scope.is_network] if unreached else answers
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
