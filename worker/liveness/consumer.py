"""A step of Celery's consumer, the main loop of a worker, that keeps its heartbeats going and watches the pool."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from celery import bootsteps
from celery.concurrency.solo import TaskPool as SoloPool
from celery.signals import worker_shutting_down
from celery.worker.state import active_requests

from worker import clock
from worker.cache import connect
from worker.domain.errors import ConfigurationError
from worker.domain.heartbeat import Heartbeat, Role
from worker.liveness.heartbeats import HeartbeatThread, heartbeat
from worker.liveness.loop import MainLoop
from worker.liveness.stores import stores_answer
from worker.liveness.watchdog import LoopWatchdog, PoolWatchdog, end_process
from worker.settings import WatchedSettings

_TICK = 5.0  # seconds
_OVERDUE = 420.0  # seconds; two minutes beyond the limit, which Celery enforces in a pool of processes only


class LivenessStep(bootsteps.StartStopStep):
    """Begins anew with each connection to the broker, because Celery clears the timers of a lost one."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._loop = MainLoop(runs_tasks=isinstance(consumer.pool, SoloPool))
        self._pool = PoolWatchdog()
        self._heartbeats: HeartbeatThread | None = None
        consumer.on_attempt = self._loop.tick

    def start(self, consumer: Any) -> None:
        self._loop.tick()
        consumer.timer.call_repeatedly(_TICK, self._look, (consumer,))
        if self._heartbeats is None:
            self._heartbeats = _started(consumer, self._loop)

    def _look(self, consumer: Any) -> None:
        self._loop.tick()
        self._pool.look(consumer.pool)
        for request in tuple(active_requests):
            if request.time_start and clock.utcnow().timestamp() - request.time_start > _OVERDUE:
                end_process("A task runs far beyond its time limit; this process ends", task=request.name)


def _started(consumer: Any, loop: MainLoop) -> HeartbeatThread:
    watched, own = WatchedSettings(), heartbeat(Role.WORKER)
    settings = watched.value
    redis = connect(settings.redis_url.get_secret_value(), prefix=settings.key_prefix)

    def describe() -> Heartbeat:
        with suppress(ConfigurationError):  # the children log it
            watched.reload()
        key_ids = tuple(key.id for key in watched.value.keys)
        queues = tuple(consumer.app.amqp.queues.consume_from)  # an operator may add or cancel some
        return replace(own, key_ids=key_ids, queues=queues)

    heartbeats = HeartbeatThread(redis, loop, LoopWatchdog(loop, lambda: stores_answer(settings)), describe)
    heartbeats.start()

    @worker_shutting_down.connect(weak=False)
    def stop(**_: object) -> None:
        heartbeats.stop()

    return heartbeats
