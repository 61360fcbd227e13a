"""Examines the processes of the fleet, as their heartbeats describe them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta

from worker import __version__
from worker.broker import SWEEP
from worker.cache import HeartbeatStore
from worker.domain.duration import duration
from worker.domain.errors import ConfigurationError, StorageError, Unavailable
from worker.domain.finding import Finding, failed, ok, warning
from worker.domain.fleet import QUEUES, sweep_limit
from worker.domain.heartbeat import Heartbeat, Role
from worker.service.refresh.fleet import Fleet


class FleetArea:
    """Silent while a store is unavailable, which another area reports."""

    name = "fleet"

    def __init__(
        self, *, fleet: Fleet, heartbeats: HeartbeatStore, key_ids: Sequence[str], sweep_interval: timedelta
    ) -> None:
        self._fleet = fleet
        self._heartbeats = heartbeats
        self._key_ids = key_ids
        self._sweep_limit = sweep_limit(sweep_interval)

    def examine(self) -> Iterator[Finding]:
        if stranger := self._stranger():
            yield stranger
            return
        with suppress(Unavailable):
            processes = [process.heartbeat for process in self._heartbeats.live()]
            workers = [process for process in processes if process.role is Role.WORKER]
            beats = [process for process in processes if process.role is Role.BEAT]
            yield ok("beat") if beats else failed("beat", "no beat is alive", "Start: celery -A worker beat")
            yield from self._of_workers(workers)
            if beats and _serves(workers, SWEEP):
                yield from self._late_sweep()
            yield from _versions(processes)

    def _stranger(self) -> Finding | None:
        """Of another fleet that uses the same keys in Redis."""
        try:
            self._fleet.check()
        except ConfigurationError as error:
            problem, _, remedy = str(error).partition(": ")
            return failed("namespace", problem, remedy[:1].upper() + remedy[1:])
        except StorageError:
            return None
        return None

    def _of_workers(self, workers: Sequence[Heartbeat]) -> Iterator[Finding]:
        if not workers:
            yield failed("workers", "no worker is alive", "Start: celery -A worker worker")
            return
        unserved = [queue for queue in QUEUES if not _serves(workers, queue)]
        if unserved:
            queues = ",".join(unserved)
            problem = f"no worker takes tasks from {', '.join(unserved)}"
            yield failed("workers", problem, f"Start: celery -A worker worker -Q {queues}")
        else:
            yield ok("workers")
        yield from self._keys(workers)

    def _keys(self, workers: Sequence[Heartbeat]) -> Iterator[Finding]:
        found = False
        for worker in workers:
            missing = [key for key in self._key_ids if key not in worker.key_ids]
            unknown = [key for key in worker.key_ids if key not in self._key_ids]
            if missing or unknown:
                found = True
            if missing:
                remedy = "Set all of WORKER_ENCRYPTION_KEYS there, and restart it"
                yield failed("keys of workers", f"{worker.name} lacks {', '.join(missing)}", remedy)
            if unknown:
                problem = f"{worker.name} has {', '.join(unknown)}, which this command's settings lack"
                yield failed("keys of workers", problem, "Set all of WORKER_ENCRYPTION_KEYS everywhere")
        if not found:
            yield ok("keys of workers")

    def _late_sweep(self) -> Iterator[Finding]:
        since = self._heartbeats.since_sweep()
        if since is None or since > self._sweep_limit:
            when = "no sweep has ended within a day" if since is None else f"the last sweep ended {duration(since)} ago"
            yield failed("sweeps", when, "Look at the logs of beat and workers")


def _serves(workers: Iterable[Heartbeat], queue: str) -> bool:
    return any(queue in worker.queues for worker in workers)


def _versions(processes: Sequence[Heartbeat]) -> Iterator[Finding]:
    others = [process for process in processes if process.version != __version__]
    for process in others:
        problem = f"{process.name} runs {process.version}, and this command is {__version__}"
        yield warning("versions", problem, "Restart what is older, if no upgrade is under way")
