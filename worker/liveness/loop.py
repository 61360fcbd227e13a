"""The main loop of a process, as its watchers see it."""

import time
from datetime import timedelta

_TASK_LIMIT = timedelta(minutes=5)  # of a loop that runs the tasks itself


class MainLoop:
    """When the main loop of this process came round last. Thread-safe."""

    def __init__(self, *, runs_tasks: bool = False) -> None:
        self._patience = _TASK_LIMIT if runs_tasks else timedelta(0)
        self._ticked_at = time.monotonic()

    def tick(self) -> None:
        """The loop calls this every five seconds at least."""
        self._ticked_at = time.monotonic()

    def is_recent(self, span: timedelta) -> bool:
        """Whether the last tick was within ``span``, or a task may be the reason that it was not."""
        return time.monotonic() - self._ticked_at <= (span + self._patience).total_seconds()
