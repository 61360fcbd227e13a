"""Whether an app registration may be used now: the breaker that all workers share, and this process's own."""

import threading
from collections.abc import Callable, Iterable
from datetime import datetime

import structlog

from worker.db import clients
from worker.db.session import Database
from worker.domain.breaker import PROBE_LEASE, Breaker, is_suspicious, judge
from worker.domain.credential import AccountId
from worker.domain.errors import AccountError, BackingOff, ClientMisconfigured
from worker.domain.outcome import Outcome, Scope, scope

log = structlog.get_logger(__name__)

Answers = list[tuple[AccountId, Outcome]]


class Gate:
    """Thread-safe.

    What Microsoft answers is shared through Postgres. That nothing is answered at all is for this process to know:
    one machine without a network must not stop the others.
    """

    def __init__(self, *, database: Database, utcnow: Callable[[], datetime]) -> None:
        self._database = database
        self._utcnow = utcnow
        self._shared: dict[str, Breaker] = {}  # as last seen, and as this process's own answers have changed it since
        self._own: dict[str, Breaker] = {}
        self._probing: set[str] = set()
        self._lock = threading.Lock()

    def admit(self, client: str, wanted: int) -> int:
        """How many of ``wanted`` questions may be asked; the last one in trouble is a canary, and only one gets it.

        Raises Unavailable without Postgres.
        """
        now = self._utcnow()
        own = self._own.get(client, Breaker(client=client))
        allowed = own.allowance(wanted, now=now)
        with self._database.begin() as connection:
            breaker = clients.find(connection, client)
            allowed = breaker.allowance(allowed, now=now)
            canary = allowed > 0 and breaker.open_until is not None
            if canary and not clients.claim_probe(connection, client, lease=PROBE_LEASE, now=now):
                canary, allowed = False, 0
        with self._lock:
            self._shared[client] = breaker.probing() if canary else breaker
            if canary:
                self._probing.add(client)
            if allowed:
                self._own[client] = own.probing()
        return allowed

    def outlook(self, client: str, wanted: int) -> int:
        """How many of ``wanted`` questions ``admit`` would let pass, as Postgres has it; takes nothing."""
        with self._database.begin() as connection:
            return clients.find(connection, client).allowance(wanted, now=self._utcnow())

    def is_open(self, client: str) -> bool:
        """Whether the breaker has opened since ``admit``: for the questions that still wait for their turn."""
        now = self._utcnow()
        seen = (self._shared.get(client), self._own.get(client))
        return any(breaker and not breaker.allowance(1, now=now) for breaker in seen)

    def observe(self, client: str, account: AccountId, outcome: Outcome) -> None:
        """Take note of an answer at once, before it is stored."""
        now = self._utcnow()
        with self._lock:
            if scope(outcome) is Scope.NETWORK:
                own = self._own.get(client, Breaker(client=client))
                self._own[client] = judge(own, [(account, outcome)], now=now)
            else:
                self._own.pop(client, None)
                shared = self._shared.get(client, Breaker(client=client))
                self._shared[client] = judge(shared, [(account, outcome)], now=now)

    def report(self, answers: Iterable[tuple[str, AccountId, Outcome]]) -> None:
        """Share what a group of answers says, if it says anything new. Raises Unavailable without Postgres."""
        by_client: dict[str, Answers] = {}
        for client, account, outcome in answers:
            if scope(outcome) is not Scope.NETWORK:
                by_client.setdefault(client, []).append((account, outcome))
        for client, given in by_client.items():
            if any(is_suspicious(outcome) for _, outcome in given) or not self._is_sound(client):
                self._share(client, given)

    def obstacle(self, client: str, email: str) -> AccountError:
        """What to tell a consumer whose account cannot be refreshed because of ``client``."""
        now = self._utcnow()
        seen = [self._shared.get(client), self._own.get(client)]
        breaker = next((one for one in seen if one and one.open_until and one.open_until > now), None)
        code = (breaker and breaker.code) or "unavailable"
        if breaker and breaker.kind == "misconfigured":
            return ClientMisconfigured(email, client, code)
        until = (breaker and breaker.open_until) or now
        return BackingOff(email, code, until - now)

    def _is_sound(self, client: str) -> bool:
        breaker = self._shared.get(client)
        return client not in self._probing and (breaker is None or (breaker.is_clean and not breaker.failures))

    def _share(self, client: str, given: Answers) -> None:
        now = self._utcnow()
        with self._database.begin() as connection:
            stored = clients.lock(connection, client, now=now)
            seen = stored.probing() if client in self._probing else stored
            judged = judge(seen, given, now=now)
            if judged != stored:
                clients.store(connection, judged, now=now)
        with self._lock:
            self._probing.discard(client)
            self._shared[client] = judged
        _tell(stored, judged)


def _tell(before: Breaker, after: Breaker) -> None:
    if after.failures > before.failures:
        log.error("App registration is not usable", client=after.client, outcome=after.kind, code=after.code)
    elif before.failures and not after.failures:
        log.info("App registration is usable again", client=after.client)
