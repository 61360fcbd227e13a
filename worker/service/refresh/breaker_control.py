"""Circuit breakers of app registrations, for operators."""

from collections.abc import Callable, Sequence
from datetime import datetime

from worker.db import breakers as rows
from worker.db.session import Database
from worker.domain.audit import Action
from worker.domain.breaker import Breaker
from worker.domain.errors import InvalidInput
from worker.service.accounts.audit import AuditLog


class BreakerControl:
    """Shows the breakers that all workers share, and ends the wait of one. Thread-safe."""

    def __init__(
        self, *, database: Database, audit: AuditLog, clients: Sequence[str], utcnow: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._audit = audit
        self._clients = clients
        self._utcnow = utcnow

    def list(self) -> Sequence[Breaker]:
        """A breaker for each app registration that is configured here or was ever in trouble."""
        with self._database.begin() as connection:
            stored = {breaker.client: breaker for breaker in rows.all_breakers(connection)}
        names = dict.fromkeys([*self._clients, *stored])
        return [stored.get(name) or Breaker(client=name) for name in names]

    def try_now(self, client: str) -> bool:
        """Let the next worker send a probe at once. False if the breaker is closed. Raises InvalidInput."""
        known = {breaker.client: breaker for breaker in self.list()}
        if client not in known:
            msg = f"no app registration is called {client!r}; known are {', '.join(known)}"
            raise InvalidInput(msg)
        with self._database.begin() as connection:
            rows.end_wait(connection, client, now=self._utcnow())
            self._audit.record(connection, Action.BREAKER_TRIED, detail=client)
        return known[client].open_until is not None
