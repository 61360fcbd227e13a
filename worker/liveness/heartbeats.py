"""Writes the heartbeats of one process."""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import structlog

from worker import __version__, clock
from worker.cache import HeartbeatStore, RedisClient
from worker.domain.errors import Unavailable
from worker.domain.heartbeat import Heartbeat, Role
from worker.liveness.loop import MainLoop
from worker.liveness.watchdog import LoopWatchdog

INTERVAL = timedelta(seconds=15)  #: between two heartbeats; Redis keeps each for a minute
_SILENCE_LIMIT = timedelta(seconds=45)  # of the main loop, after which no heartbeat is written

_log = structlog.get_logger(__name__)


class HeartbeatThread:
    """Writes a heartbeat every 15 seconds, provided the main loop still comes round, and lets the watchdog look at it.
    Costs the loop nothing, even while Redis is away. Make it after a fork.
    """

    def __init__(
        self, redis: RedisClient, loop: MainLoop, watchdog: LoopWatchdog, describe: Callable[[], Heartbeat]
    ) -> None:
        self._redis = redis
        self._loop = loop
        self._watchdog = watchdog
        self._describe = describe
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write no more heartbeats, remove the last one, and end the watch."""
        self._stopping.set()

    def _run(self) -> None:
        with self._redis:
            store = HeartbeatStore(self._redis)
            while not self._stopping.is_set():
                if self._loop.is_recent(_SILENCE_LIMIT):
                    self._write(store)
                if not self._stopping.wait(INTERVAL.total_seconds()):
                    self._watchdog.look(INTERVAL)
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
