"""Types of options that are numbers."""

import math
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """A float between bounds. ``nan`` is between all bounds for click."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number that can be used.", param, ctx)
        return number
