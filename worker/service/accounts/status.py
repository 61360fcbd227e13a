"""The state of the fleet for operators. Each source is read by itself: one that is away does not hide the others."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import RowMapping

from worker.cache import HeartbeatStore, OutboxStore, server_time
from worker.db import breakers, figures, pauses
from worker.db.session import Database
from worker.domain.errors import WorkerError
from worker.domain.fleet import FleetState, LiveState, StoredState

_T = TypeVar("_T")

_OF_ALL_ROWS = timedelta(minutes=5)
_LATELY = timedelta(hours=1)
_CODES = 5  # that are shown


class FleetStatus:
    """``depths`` reads the lengths of the queues, or raises Unavailable. Not thread-safe."""

    def __init__(
        self,
        *,
        database: Database,
        outbox: OutboxStore,
        heartbeats: HeartbeatStore,
        depths: Callable[[], Mapping[str, int]],
        redis_url: str,
        clients: Sequence[str],
        key_ids: Sequence[str],
        sweep_interval: timedelta,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._heartbeats = heartbeats
        self._depths = depths
        self._redis_url = redis_url
        self._clients = clients
        self._key_ids = key_ids
        self._sweep_interval = sweep_interval
        self._utcnow = utcnow

    def read(self) -> FleetState:
        """Everything that can be known now."""
        unavailable: dict[str, str] = {}
        return FleetState(
            at=self._utcnow(),
            stored=_known("Postgres", self._stored, unavailable),
            live=_known("Redis", self._live, unavailable),
            queues=_known("the broker", self._depths, unavailable),
            key_ids=self._key_ids,
            sweep_interval=self._sweep_interval,
            unavailable=unavailable,
        )

    def by(self, dimension: figures.Dimension) -> Sequence[RowMapping]:
        """The figures by app registration, domain, code or label: a look at every account."""
        with self._database.begin_long(_OF_ALL_ROWS) as connection:
            return figures.by(connection, dimension, now=self._utcnow())

    def _stored(self) -> StoredState:
        skew, now = self._database.utcnow() - self._utcnow(), self._utcnow()
        with self._database.begin_long(_OF_ALL_ROWS) as connection:
            return StoredState(
                figures=figures.summary(connection, clients=self._clients, now=now),
                codes=[dict(row) for row in figures.failing_codes(connection, since=now - _LATELY, limit=_CODES)],
                breakers=[each for each in breakers.all_breakers(connection) if not each.is_clean],
                pauses=pauses.all_pauses(connection),
                skew=skew,
            )

    def _live(self) -> LiveState:
        return LiveState(
            in_outbox=self._outbox.size(),
            processes=self._heartbeats.live(),
            since_sweep=self._heartbeats.since_sweep(),
            skew=server_time(self._redis_url) - self._utcnow(),
        )


def _known(source: str, read: Callable[[], _T], unavailable: dict[str, str]) -> _T | None:
    try:
        return read()
    except WorkerError as error:
        unavailable[source] = str(error)
        return None
