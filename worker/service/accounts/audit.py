"""Records who did what to accounts, and shows it."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection

from worker.db import audit as rows
from worker.db.session import Database
from worker.domain.account import AccountId
from worker.domain.audit import Act, Action, Actor

_PAGE = 10_000  # a delete that holds its locks for a moment


class AuditLog:
    """The acts of this process are those of its actor. Thread-safe."""

    def __init__(
        self, *, database: Database, actor: Actor, retention: timedelta, utcnow: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._actor = actor
        self._retention = retention
        self._utcnow = utcnow

    def record(
        self, connection: Connection, action: Action, accounts: Sequence[AccountId] = (), *, detail: str | None = None
    ) -> None:
        """Record an act in the transaction that does it."""
        rows.record(connection, self._actor, action, accounts, detail=detail, now=self._utcnow())

    def write(self, action: Action, accounts: Sequence[AccountId] = (), *, detail: str | None = None) -> None:
        """Record an act that changes nothing in Postgres, or in many transactions. Raises Unavailable."""
        with self._database.begin() as connection:
            self.record(connection, action, accounts, detail=detail)

    def acts(self, *, account: AccountId | None = None, since: datetime | None = None, limit: int) -> list[Act]:
        """The newest acts, newest first."""
        with self._database.begin() as connection:
            return rows.acts(connection, account=account, since=since, limit=limit)

    def prune(self) -> None:
        """Delete acts that are older than the retention."""
        before = self._utcnow() - self._retention
        while True:
            with self._database.begin() as connection:
                if rows.prune(connection, before=before, limit=_PAGE) < _PAGE:
                    return
