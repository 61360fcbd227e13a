"""Whether an app registration may be used now: the breaker that all workers share, and this process's own."""

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from worker.db import breakers
from worker.db.session import Database
from worker.domain.account import AccountId
from worker.domain.breaker import PROBE_LEASE, Breaker, is_suspicious, judge
from worker.domain.errors import AccountError, BackingOff, ClientMisconfigured, Unavailable
from worker.domain.outcome import Outcome, Scope

log = structlog.get_logger(__name__)

Answers = list[tuple[AccountId, Outcome]]


class CircuitBreakers:
    """Thread-safe.

    What Microsoft answers is shared through Postgres. That nothing is answered at all is for this process to know:
    one machine without a network must not stop the others.
    """

    def __init__(self, *, database: Database, utcnow: Callable[[], datetime]) -> None:
        self._database = database
        self._utcnow = utcnow
        self._stored: dict[str, Breaker] = {}  # as Postgres had it when last seen
        self._shared: dict[str, Breaker] = {}  # the same, as this process's own answers have changed it since
        self._own: dict[str, Breaker] = {}
        self._probes: dict[str, datetime] = {}  # canaries of this process that are out, and until when they may be
        self._lock = threading.Lock()

    def admit(self, client: str, wanted: int) -> int:
        """How many of ``wanted`` questions may be asked; of an open breaker, one canary by whoever is first.

        Raises Unavailable without Postgres. Whoever was let pass calls ``withdraw`` in the end.
        """
        now = self._utcnow()
        own, until = self._own.get(client, Breaker(client=client)), now + PROBE_LEASE
        with self._database.begin() as connection:
            stored = breakers.find(connection, client)
            allowed = stored.allowance(own.allowance(wanted, now=now), now=now)
            canary = allowed > 0 and stored.open_until is not None
            if canary and not breakers.claim_probe(connection, client, until=until, now=now):
                stored, allowed, canary = breakers.find(connection, client), 0, False
        with self._lock:
            if canary:
                stored = replace(stored, open_until=until)
                self._probes[client] = until
            if allowed and own.open_until is not None:
                self._own[client] = own.probing()
            self._stored[client] = self._shared[client] = stored
        return allowed

    def withdraw(self, client: str) -> None:
        """Give back a canary that was not sent after all, or found no way to Microsoft, so that another may go."""
        with self._lock:
            until = self._probes.pop(client, None)
        if until is not None:
            with suppress(Unavailable), self._database.begin() as connection:
                breakers.release_probe(connection, client, until=until, now=self._utcnow())

    def outlook(self, client: str, wanted: int) -> int:
        """How many of ``wanted`` questions ``admit`` would let pass, as Postgres has it; takes nothing."""
        with self._database.begin() as connection:
            return breakers.find(connection, client).allowance(wanted, now=self._utcnow())

    def is_open(self, client: str) -> bool:
        """Whether the breaker has opened since ``admit``: for the questions that still wait for their turn."""
        shared, own = self._shared.get(client), self._own.get(client)
        if (shared is None or shared.open_until is None) and (own is None or own.open_until is None):
            return False  # the usual case, asked for every account
        now = self._utcnow()
        return not all(self._as_asked(breaker).allowance(1, now=now) for breaker in (shared, own) if breaker)

    def observe(self, client: str, answers: Answers) -> None:
        """Take note of answers at once, before they are stored."""
        now = self._utcnow()
        unheard = [answer for answer in answers if answer[1].scope is Scope.NETWORK]
        heard = [answer for answer in answers if answer[1].scope is not Scope.NETWORK]
        with self._lock:
            before = after = self._own.get(client, Breaker(client=client))
            if heard:
                after = Breaker(client=client)
                self._own.pop(client, None)
                shared = self._shared.get(client, Breaker(client=client))
                self._shared[client] = judge(self._as_asked(shared), heard, now=now)
            elif unheard:
                after = self._own[client] = judge(before, unheard, now=now)
        _tell_of_network(before, after)

    def report(self, answers: Iterable[tuple[str, AccountId, Outcome]]) -> None:
        """Share what a group of answers says, if it says anything new. Raises Unavailable without Postgres."""
        by_client: dict[str, Answers] = {}
        for client, account, outcome in answers:
            if outcome.scope is not Scope.NETWORK:
                by_client.setdefault(client, []).append((account, outcome))
        for client, given in by_client.items():
            if any(is_suspicious(outcome) for _, outcome in given) or not self._was_clean(client):
                self._share(client, given)

    def obstacle(self, client: str, email: str) -> AccountError:
        """What to tell a consumer whose account cannot be refreshed because of ``client``."""
        now = self._utcnow()
        seen = [self._shared.get(client), self._own.get(client)]
        until, breaker = max(
            ((one.open_until, one) for one in seen if one and one.open_until),
            key=lambda pair: pair[0],
            default=(now, Breaker(client=client)),
        )
        code = breaker.code or "unavailable"
        if breaker.kind == "misconfigured":
            return ClientMisconfigured(email, client, code)
        return BackingOff(email, code, max(until - now, timedelta(0)))

    def _was_clean(self, client: str) -> bool:
        """Whether a good answer would change nothing in Postgres."""
        stored = self._stored.get(client)
        return stored is not None and stored.is_clean

    def _as_asked(self, breaker: Breaker) -> Breaker:
        """The breaker as this process may judge it: if the canary is ours, its answer decides."""
        until = self._probes.get(breaker.client)
        return breaker.probing() if until is not None and breaker.open_until == until else breaker

    def _share(self, client: str, given: Answers) -> None:
        now = self._utcnow()
        with self._database.begin() as connection:
            stored = breakers.lock(connection, client, now=now)
            judged = judge(self._as_asked(stored), given, now=now)
            if judged != stored:
                breakers.store(connection, judged, now=now)
        with self._lock:
            self._probes.pop(client, None)
            self._stored[client] = self._shared[client] = judged
        _tell(stored, judged)


def _tell_of_network(before: Breaker, after: Breaker) -> None:
    """Once when it is lost: no other process knows, and nothing of it stands in Postgres."""
    if after.failures and not before.failures:
        log.error("Microsoft cannot be reached from here", client=after.client, code=after.code)
    elif before.failures and not after.failures:
        log.info("Microsoft can be reached again", client=after.client)


def _tell(before: Breaker, after: Breaker) -> None:
    if after.failures > before.failures:
        log.error("App registration is not usable", client=after.client, outcome=after.kind, code=after.code)
    elif before.failures and not after.failures:
        log.info("App registration is usable again", client=after.client)
