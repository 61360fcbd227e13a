"""Beat's scheduler: Celery's own, with heartbeats, and one line a minute while the broker is away."""

from typing import Any

import celery.beat
import structlog

from worker.broker import RETRY
from worker.cache import connect
from worker.domain.heartbeat import Role
from worker.liveness.heartbeats import HeartbeatThread, heartbeat
from worker.liveness.loop import MainLoop
from worker.liveness.stores import stores_answer
from worker.liveness.watchdog import LoopWatchdog
from worker.log_limit import LogLimit
from worker.redis_failures import advice
from worker.settings import BrokerSettings, load

_log = structlog.get_logger(__name__)


class Scheduler(celery.beat.Scheduler):
    """Writes no file, because the due times are in Postgres."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._loop = MainLoop()
        self._limit = LogLimit()
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

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send one task. The next one is the retry."""
        self.logger.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)  # as Celery does
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except celery.beat.SchedulingError as error:
            self._note(error.__cause__ or error.__context__ or error)

    def _ensure_connected(self) -> Any:
        return self.connection.ensure_connection(self._note, max_retries=None, **RETRY)  # type: ignore[arg-type]

    def _note(self, error: BaseException, _interval: float = 0) -> None:
        self._loop.tick()  # it is alive, although it may wait for the broker for hours
        words = advice(error)
        if self._limit.allows(words):
            _log.error("Broker cannot be used; beat tries again every few seconds", reason=words)

    def _start_heartbeats(self) -> HeartbeatThread:
        settings, own = load(BrokerSettings), heartbeat(Role.BEAT)
        redis = connect(settings.redis_url.get_secret_value(), prefix=settings.key_prefix)
        watchdog = LoopWatchdog(self._loop, lambda: stores_answer(settings))
        heartbeats = HeartbeatThread(redis, self._loop, watchdog, lambda: own)
        heartbeats.start()
        return heartbeats
