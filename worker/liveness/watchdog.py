"""Ends what hangs, so that a supervisor or the pool starts it anew.

Celery ends a task after its time limit, but neither beat nor the main loop of a worker, nor a child of the pool that
hangs between two tasks.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, NoReturn

import structlog

from worker.liveness.loop import MainLoop

LIMIT = timedelta(minutes=1)  #: of silence

_FAILED = 1  # exit code

_log = structlog.get_logger(__name__)


class LoopWatchdog:
    """Ends this process if its main loop has been silent for a minute in which all stores answered. A loop may wait for
    a store. Not thread-safe.
    """

    def __init__(self, loop: MainLoop, stores_answer: Callable[[], bool]) -> None:
        self._loop = loop
        self._stores_answer = stores_answer
        self._silent = timedelta(0)

    def look(self, since_last: timedelta) -> None:
        """Call this now and then, from another thread. ``since_last`` is the time between two calls, in which this
        thread at least was alive; the time since the last tick may contain a suspension of the machine.
        """
        if self._loop.is_recent(since_last) or not self._stores_answer():
            self._silent = timedelta(0)
            return
        self._silent += since_last
        if self._silent >= LIMIT:
            end_process("The main loop hangs although all stores answer; this process ends")


class PoolWatchdog:
    """Kills children that do not begin a task within a minute of getting it. The pool replaces them."""

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}  # numbers of jobs that have not begun, and when they were seen first

    def look(self, pool: Any) -> None:
        """Call this now and then, in the main loop. ``pool`` is Celery's; one without processes is ignored."""
        now, waiting = time.monotonic(), dict(_not_begun(pool))
        self._seen = {job: self._seen.get(job, now) for job in waiting}
        for pid in {pid for job, pid in waiting.items() if now - self._seen[job] >= LIMIT.total_seconds()}:
            _log.critical("A child of the pool takes no task; it is killed and replaced", child=pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _not_begun(pool: Any) -> Iterator[tuple[int, int]]:
    """The number of each job that was written to a child and has not begun, and the process id of the child."""
    for number, job in getattr(getattr(pool, "_pool", None), "_cache", {}).items():
        child = getattr(job, "_write_to", None)
        if child is not None and not job.accepted():
            yield number, child.pid


def end_process(event: str, **fields: object) -> NoReturn:
    """Log and exit at once. Nothing that hangs can delay it; children of a worker finish their tasks."""
    _log.critical(event, **fields)
    os._exit(_FAILED)
