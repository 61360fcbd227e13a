"""Quantiles of a series of measurements, of which other load may have disturbed a part."""

import statistics
from collections.abc import Sequence


def p99(spent: Sequence[float], stretches: int) -> float:
    """The median of the p99 of so many stretches."""
    return statistics.median(statistics.quantiles(part, n=100)[-1] for part in _parts(spent, stretches))


def _parts(spent: Sequence[float], number: int) -> list[Sequence[float]]:
    """Stretches of the series in its order. There are fewer if a stretch would have less than two values."""
    number = max(1, min(number, len(spent) // 2))
    return [spent[len(spent) * part // number : len(spent) * (part + 1) // number] for part in range(number)]
