"""Spans of time in words."""

from datetime import timedelta


def duration(span: timedelta) -> str:
    """``42 min``; one unit is precise enough to act on."""
    seconds = span.total_seconds()
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
