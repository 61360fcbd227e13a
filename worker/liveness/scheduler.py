"""Beat's scheduler: Celery's own, with heartbeats."""

from typing import Any

import celery.beat

from worker.cache import connect
from worker.domain.heartbeat import Role
from worker.liveness.heartbeats import HeartbeatThread, MainLoop, heartbeat
from worker.settings import BrokerSettings, load


class Scheduler(celery.beat.Scheduler):
    """Writes no file, because the due times are in Postgres."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._loop = MainLoop()
        self._heartbeats: HeartbeatThread | None = None

    def tick(self, *args: Any, **options: Any) -> float:
        """Send what is due. Celery calls this every five seconds at least."""
        if self._heartbeats is None:  # not before, because `celery worker -B` forks
            self._heartbeats = self._start_heartbeats()
        self._loop.tick()
        return super().tick(*args, **options)

    def close(self) -> None:
        if self._heartbeats is not None:
            self._heartbeats.stop()
        super().close()

    def _start_heartbeats(self) -> HeartbeatThread:
        settings, own = load(BrokerSettings), heartbeat(Role.BEAT)
        redis = connect(settings.redis_url.get_secret_value(), prefix=settings.key_prefix)
        heartbeats = HeartbeatThread(redis, self._loop, lambda: own)
        heartbeats.start()
        return heartbeats
