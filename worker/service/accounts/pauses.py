"""Pauses of app registrations and tenants as a whole."""

from collections.abc import Callable, Sequence
from datetime import datetime

from worker.db import pauses as rows
from worker.db.session import Database
from worker.domain.audit import Action
from worker.domain.pause import Group, Pause
from worker.service.accounts.audit import AuditLog


class Pauses:
    """Which groups are paused for accounts that sign in from now on; AccountStates changes the others. Thread-safe."""

    def __init__(self, *, database: Database, audit: AuditLog, utcnow: Callable[[], datetime]) -> None:
        self._database = database
        self._audit = audit
        self._utcnow = utcnow

    def begin(self, groups: Sequence[Group]) -> None:
        """Pause groups. Afterwards pause the accounts that they have."""
        with self._database.begin() as connection:
            for group in groups:
                rows.begin(connection, group, now=self._utcnow())
                self._audit.record(connection, Action.PAUSED, detail=str(group))

    def end(self, groups: Sequence[Group]) -> None:
        """End the pauses of groups. Afterwards resume their accounts."""
        with self._database.begin() as connection:
            for group in groups:
                rows.end(connection, group)
                self._audit.record(connection, Action.RESUMED, detail=str(group))

    def list(self) -> Sequence[Pause]:
        """All pauses."""
        with self._database.begin() as connection:
            return rows.all_pauses(connection)
