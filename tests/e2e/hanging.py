"""The application, for ``celery -A``, with short limits of the watchdogs. SIGRTMIN lets a main thread wait for ever, as
in a deadlock.
"""

import signal
import threading
from datetime import timedelta

from worker.celery import app as app
from worker.liveness import consumer, heartbeats, watchdog


def _hang(*_: object) -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


signal.signal(signal.SIGRTMIN, _hang)
watchdog.LIMIT = timedelta(seconds=3)
heartbeats.INTERVAL = timedelta(seconds=1)
consumer._TICK = 0.3
