"""Celery's consumer, which waits for a broker that is away."""

import time
import warnings
from collections.abc import Callable
from typing import Any

import structlog
from celery.exceptions import CPendingDeprecationWarning
from celery.worker.state import maybe_shutdown

from worker.broker.connection import RETRY
from worker.broker.messages import CheckedConsumer
from worker.log_limit import LogLimit
from worker.redis_failures import advice

_CALM = 30.0  # seconds without an error, after which the first interval counts again
_TICK = 0.2  # seconds in which a signal to stop is noticed

_log = structlog.get_logger(__name__)


class PatientConsumer(CheckedConsumer):
    """Waits between attempts to connect, and logs one line a minute instead of one for each."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.on_attempt: Callable[[], None] = lambda: None  #: is called at each failed attempt to connect
        super().__init__(*args, **options)  # its steps may replace it
        self._limit = LogLimit()
        self._interval = 0
        self._failed_at = -_CALM

    def ensure_connected(self, conn: Any) -> Any:
        """Called by Celery with a connection to open."""
        opened = conn.ensure_connection(self._note, None, callback=maybe_shutdown, **RETRY)
        self.first_connection_attempt = False
        return opened

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        self._note(exc)
        self._wait()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        self._note(exc)
        with warnings.catch_warnings():  # Celery advises each time to set what is set
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)
        self._wait()

    def _note(self, error: Exception, _interval: float = 0) -> None:
        self.on_attempt()
        words = advice(error)
        if self._limit.allows(words):
            _log.error("Broker cannot be used; the worker tries again every few seconds", reason=words)

    def _wait(self) -> None:
        """Sleep longer each time, so that a broker that accepts and then fails does not make a storm."""
        now = time.monotonic()
        calm = now - self._failed_at > _CALM
        self._interval = RETRY["interval_start"] if calm else self._interval + RETRY["interval_step"]
        self._interval = min(self._interval, RETRY["interval_max"])
        self._failed_at = now
        while time.monotonic() < now + self._interval:
            maybe_shutdown()
            time.sleep(_TICK)
