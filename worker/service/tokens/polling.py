"""Waiting for somebody else's refresh."""

import time
from collections.abc import Iterator

# How often a waiter looks whether the holder of the lease is done. Longer than the longest question to Microsoft.
_FIRST_LOOK, _LONGEST_LOOK, _PATIENCE = 0.02, 0.5, 45.0  # seconds


def looks(patience: float = _PATIENCE) -> Iterator[None]:
    """Come back now, then at growing intervals until patience ends. Counts sleeps: a test's clock may stand still."""
    pause, waited = _FIRST_LOOK, 0.0
    while waited < patience:
        yield
        time.sleep(pause)
        waited += pause
        pause = min(pause * 1.5, _LONGEST_LOOK)
