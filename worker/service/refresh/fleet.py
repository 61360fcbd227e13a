"""Whether Redis belongs to this fleet: two fleets would take each other's messages and pending results."""

from uuid import UUID

import structlog

from worker.cache import FleetMarker
from worker.db import fleet
from worker.db.session import Database
from worker.domain.errors import ConfigurationError, Unavailable

log = structlog.get_logger(__name__)


class Fleet:
    """Thread-safe. Compares the id in Postgres with the one in Redis, and writes the latter where it is missing."""

    def __init__(self, *, database: Database, marker: FleetMarker) -> None:
        self._database = database
        self._marker = marker
        self._id: UUID | None = None
        self._is_checked = False

    def check(self) -> None:
        """As ``claim``, until the first success in this process."""
        if not self._is_checked:
            self.claim()

    def claim(self) -> None:
        """Mark the namespace as this fleet's, unless it has a mark.

        Raises ConfigurationError if it is another fleet's, except in a process that has passed before: no value in
        Redis stops a running worker. Does nothing while a store is down.
        """
        try:
            own = self._id = self._id or self._read_id()
            found = self._marker.claim(own)
        except Unavailable:
            return
        if found == own:
            self._is_checked = True
        elif self._is_checked:
            log.error("Another fleet uses the same keys in Redis", key=self._marker.key)
        else:
            msg = (
                "Redis holds the keys of a fleet with another database: set WORKER_NAMESPACE to a name of this"
                f" fleet's own; or, if its database replaces the other one, run: redis-cli DEL {self._marker.key}"
            )
            raise ConfigurationError(msg)

    def _read_id(self) -> UUID:
        with self._database.begin() as connection:
            found = fleet.read_id(connection)
        if found is None:
            msg = "the table fleet is empty; run: INSERT INTO fleet DEFAULT VALUES"
            raise ConfigurationError(msg)
        return found
