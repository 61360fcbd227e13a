"""Reads the ledger for operators, and keeps its partitions."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from worker.db import breakers as breaker_rows
from worker.db import events, figures
from worker.db.ahead import fleet_ahead
from worker.db.session import Database
from worker.domain.account import AccountId
from worker.domain.breaker import Breaker
from worker.domain.simulation import FleetAhead

_OF_ALL_ROWS = timedelta(minutes=5)


class Ledger:
    """Requests and their outcomes, and the state of the fleet."""

    def __init__(
        self,
        *,
        database: Database,
        clients: Sequence[str],
        event_days: int,
        success_days: int,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._clients = clients
        self._event_days = event_days
        self._success_days = success_days
        self._utcnow = utcnow

    def latest(self, account: AccountId, *, limit: int = 10) -> Sequence[Mapping[str, Any]]:
        """The account's newest lines, newest first."""
        with self._database.begin() as connection:
            return [dict(row) for row in events.latest(connection, account, limit=limit)]

    def summary(self) -> Mapping[str, Any]:
        """Accounts by state, how many are due, expired and failing, and the oldest due time: a look at every row."""
        with self._database.begin_long(_OF_ALL_ROWS) as connection:
            return figures.summary(connection, clients=self._clients, now=self._utcnow())

    def breakers(self) -> Sequence[Breaker]:
        """The app registrations that are in trouble."""
        with self._database.begin() as connection:
            stored = breaker_rows.all_breakers(connection)
        return [breaker for breaker in stored if not (breaker.is_clean or breaker.is_suspected)]

    def ahead(self, minutes: int) -> FleetAhead:
        """The schedule of the next minutes: a look at every row."""
        with self._database.begin_long(_OF_ALL_ROWS) as connection:
            return fleet_ahead(connection, minutes=minutes, now=self._utcnow())

    def maintain(self) -> int:
        """Make the partitions of the coming days, and drop old ones. Returns how many were dropped."""
        with self._database.begin() as connection:
            return events.maintain(
                connection, event_days=self._event_days, success_days=self._success_days, now=self._utcnow()
            )
