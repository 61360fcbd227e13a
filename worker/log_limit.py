"""Keeps a log readable while a store is away: the same line once a minute."""

import time

_INTERVAL = 60.0  # seconds


class LogLimit:
    """Not thread-safe, but at worst it lets a line through twice."""

    def __init__(self) -> None:
        self._allowed_at: dict[str, float] = {}

    def allows(self, line: str) -> bool:
        """Whether the line was not allowed within the last minute."""
        now = time.monotonic()
        self._allowed_at = {each: at for each, at in self._allowed_at.items() if now - at < _INTERVAL}
        if line in self._allowed_at:
            return False
        self._allowed_at[line] = now
        return True
