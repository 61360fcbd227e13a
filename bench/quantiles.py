"""Quantiles of a series that something else may have disturbed for a while."""

import statistics
from collections.abc import Sequence


def p99(spent: Sequence[float], stretches: int) -> float:
    """The median of so many stretches'."""
    return statistics.median(statistics.quantiles(part, n=100)[-1] for part in _parts(spent, stretches))


def _parts(spent: Sequence[float], number: int) -> list[Sequence[float]]:
    """In the order they came; fewer, if there would not be two in each."""
    number = max(1, min(number, len(spent) // 2))
    return [spent[len(spent) * part // number : len(spent) * (part + 1) // number] for part in range(number)]
