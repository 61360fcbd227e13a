"""The metrics that Redis yields at each scrape: the outbox, live processes and the last sweep."""

from collections.abc import Callable, Sequence
from datetime import datetime

from prometheus_client.metrics_core import Metric

from worker.cache import HeartbeatStore, OutboxStore, connect, server_time
from worker.domain.heartbeat import LiveProcess, Role
from worker.exporter import labels
from worker.exporter.families import Reading, gauge, gauges, seconds


class RedisState:
    """Results that wait for Postgres, and the heartbeats of the fleet."""

    name = "redis"

    def __init__(self, url: str, *, prefix: str, utcnow: Callable[[], datetime]) -> None:
        self._url = url
        self._utcnow = utcnow
        self._redis = connect(url, prefix=prefix)
        self._outbox, self._heartbeats = OutboxStore(self._redis), HeartbeatStore(self._redis)

    def read(self) -> Reading:
        """Raises Unavailable."""
        ahead = server_time(self._url) - self._utcnow()
        processes, since_sweep, now = self._heartbeats.live(), self._heartbeats.since_sweep(), self._utcnow()
        sweep = "last_sweep_timestamp_seconds", "When a worker last ended a sweep, which beat sends"
        return Reading(
            [
                gauge("outbox_entries", "Results that wait in Redis for Postgres", self._outbox.size()),
                *([gauge(*sweep, seconds(now - since_sweep))] if since_sweep is not None else []),
                *_of_workers([process for process in processes if process.heartbeat.role is Role.WORKER], now),
            ],
            [ahead, *(ahead + process.skew for process in processes)],
        )

    def close(self) -> None:
        self._redis.close()


def _of_workers(workers: Sequence[LiveProcess], now: datetime) -> Sequence[Metric]:
    """The youngest heartbeat of each machine; and workers whose keys are not those of the others."""
    known = {key for worker in workers for key in worker.heartbeat.key_ids}
    lacking = [worker for worker in workers if known - set(worker.heartbeat.key_ids)]
    oldest_first = sorted(workers, key=lambda worker: worker.age, reverse=True)
    ages = {labels.host(worker.heartbeat.host): worker.age for worker in oldest_first}
    return [
        gauges(
            "worker_heartbeat_timestamp_seconds",
            "The last heartbeat of a worker on this host; a worker that has ended is absent after a minute",
            ["host"],
            (((name,), seconds(now - age)) for name, age in ages.items()),
        ),
        gauge("workers_lacking_keys", "Workers without an encryption key that another worker has", len(lacking)),
    ]
