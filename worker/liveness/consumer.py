"""A step of Celery's consumer, the main loop of a worker, that keeps its heartbeats going."""

from dataclasses import replace
from typing import Any

from celery import bootsteps
from celery.concurrency.solo import TaskPool as SoloPool
from celery.signals import worker_shutting_down

from worker.cache import connect
from worker.domain.heartbeat import Heartbeat, Role
from worker.liveness.heartbeats import HeartbeatThread, MainLoop, heartbeat
from worker.settings import Settings, load

_TICK = 5.0  # seconds


class LivenessStep(bootsteps.StartStopStep):
    """Begins anew with each connection to the broker, because Celery clears the timers of a lost one."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._loop = MainLoop(runs_tasks=isinstance(consumer.pool, SoloPool))
        self._heartbeats: HeartbeatThread | None = None

    def start(self, consumer: Any) -> None:
        self._loop.tick()
        consumer.timer.call_repeatedly(_TICK, self._loop.tick)
        if self._heartbeats is None:
            self._heartbeats = _started(consumer, self._loop)


def _started(consumer: Any, loop: MainLoop) -> HeartbeatThread:
    settings, own = load(Settings), heartbeat(Role.WORKER)
    redis = connect(settings.redis_url.get_secret_value(), prefix=settings.key_prefix)
    own = replace(own, key_ids=tuple(key.id for key in settings.keys))

    def describe() -> Heartbeat:
        return replace(own, queues=tuple(consumer.app.amqp.queues.consume_from))  # an operator may add or cancel some

    heartbeats = HeartbeatThread(redis, loop, describe)
    heartbeats.start()

    @worker_shutting_down.connect(weak=False)
    def stop(**_: object) -> None:
        heartbeats.stop()

    return heartbeats
