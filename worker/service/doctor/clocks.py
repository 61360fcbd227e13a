"""Examines the clocks of this machine, of the stores, of Microsoft, and of each process with a heartbeat."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta

from worker.cache import HeartbeatStore, server_time
from worker.db.session import Database
from worker.domain.clocks import wrong_clocks
from worker.domain.errors import Unavailable, WorkerError
from worker.domain.finding import Finding, failed, ok
from worker.identity import Identity

_THIS = "this machine"
_MINUTE = timedelta(minutes=1)


class ClockArea:
    """Compares all clocks that can be read. The other areas report a server that cannot be reached."""

    name = "clocks"

    def __init__(
        self,
        *,
        database: Database,
        redis_url: str,
        identity: Identity,
        heartbeats: HeartbeatStore,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._redis_url = redis_url
        self._identity = identity
        self._heartbeats = heartbeats
        self._utcnow = utcnow

    def examine(self) -> Iterator[Finding]:
        wrong = wrong_clocks(self._offsets())
        for name, difference in wrong.items():
            minutes = abs(difference) / _MINUTE
            problem = f"the clock of {name} is {minutes:.0f} min {'ahead' if difference > timedelta(0) else 'behind'}"
            yield failed(self.name, problem, "Synchronise it (NTP)")
        if not wrong:
            yield ok(self.name)

    def _offsets(self) -> dict[str, timedelta]:
        """How far each clock is ahead of that of this machine."""
        offsets = {_THIS: timedelta(0)}
        for name, read in self._servers().items():
            with suppress(WorkerError):
                if time := read():
                    offsets[name] = time - self._utcnow()
        if (redis := offsets.get("Redis")) is not None:
            with suppress(Unavailable):
                for process in self._heartbeats.live():
                    heartbeat = process.heartbeat
                    offsets[f"{heartbeat.role} {heartbeat.host}"] = process.skew + redis
        return offsets

    def _servers(self) -> dict[str, Callable[[], datetime | None]]:
        client = self._identity.clients[0]
        return {
            "Postgres": self._database.utcnow,
            "Redis": lambda: server_time(self._redis_url),
            "Microsoft": lambda: self._identity.server_time(client),
        }
