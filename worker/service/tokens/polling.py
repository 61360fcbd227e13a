"""Polling with back-off, until another process has finished."""

import time
from collections.abc import Iterator

# Seconds. The limit is longer than the longest request to Microsoft.
_FIRST_PAUSE, _PAUSE_CAP, _LIMIT = 0.02, 0.5, 45.0


def poll(limit: float = _LIMIT) -> Iterator[None]:
    """Come back at once, then at growing intervals of up to half a second, for ``limit`` seconds of pauses."""
    pause, waited = _FIRST_PAUSE, 0.0  # pauses are added up: a test's clock may stand still
    while waited < limit:
        yield
        time.sleep(pause)
        waited += pause
        pause = min(pause * 1.5, _PAUSE_CAP)
