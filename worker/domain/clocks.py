"""Which of several clocks are wrong. Due times and leases are compared between machines."""

from collections.abc import Mapping
from datetime import timedelta
from statistics import median_low

TOLERANCE = timedelta(minutes=1)


def wrong_clocks(offsets: Mapping[str, timedelta]) -> dict[str, timedelta]:
    """The clocks that differ from the middle one by more than a minute, and by how much; positive if ahead.

    ``offsets`` are those from any one clock, which is among them with an offset of zero.
    """
    middle = timedelta(seconds=median_low(offset.total_seconds() for offset in offsets.values()))
    differences = {name: offset - middle for name, offset in offsets.items()}
    return {name: difference for name, difference in differences.items() if abs(difference) > TOLERANCE}
