"""Writes the heartbeats of one process."""

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import structlog

from worker import __version__, clock
from worker.cache import HeartbeatStore, RedisClient
from worker.domain.errors import Unavailable
from worker.domain.heartbeat import Heartbeat, Role

_INTERVAL = 15.0  # seconds between two heartbeats; Redis keeps each for a minute
_SILENCE_LIMIT = timedelta(seconds=45)  # of the main loop, after which no heartbeat is written
_TASK_LIMIT = timedelta(minutes=5)  # likewise, if the loop itself runs the tasks

_log = structlog.get_logger(__name__)


class MainLoop:
    """When the main loop of this process came round last. Thread-safe."""

    def __init__(self, *, runs_tasks: bool = False) -> None:
        self._limit = _TASK_LIMIT if runs_tasks else _SILENCE_LIMIT
        self._ticked_at = time.monotonic()

    def tick(self) -> None:
        self._ticked_at = time.monotonic()

    def is_alive(self) -> bool:
        return time.monotonic() - self._ticked_at < self._limit.total_seconds()


class HeartbeatThread:
    """Writes a heartbeat every 15 seconds, provided the main loop still comes round. Costs the loop nothing, even while
    Redis is away. Make it after a fork.
    """

    def __init__(self, redis: RedisClient, loop: MainLoop, describe: Callable[[], Heartbeat]) -> None:
        self._redis = redis
        self._loop = loop
        self._describe = describe
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write no more heartbeats, and remove the last one."""
        self._stopping.set()

    def _run(self) -> None:
        with self._redis:
            store = HeartbeatStore(self._redis)
            while not self._stopping.is_set():
                if self._loop.is_alive():
                    self._write(store)
                self._stopping.wait(_INTERVAL)
            with suppress(Unavailable):
                store.remove(self._describe())

    def _write(self, store: HeartbeatStore) -> None:
        try:
            store.put(replace(self._describe(), at=clock.utcnow()))
        except Unavailable as error:
            _log.debug("Heartbeat not written", reason=str(error))


def heartbeat(role: Role) -> Heartbeat:
    """A first heartbeat of this process."""
    now = clock.utcnow()
    return Heartbeat(role=role, host=socket.gethostname(), pid=os.getpid(), version=__version__, started_at=now, at=now)
