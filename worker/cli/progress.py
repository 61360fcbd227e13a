"""Progress of a long command, on standard error: a bar on a terminal, elsewhere a line now and then."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

import click

from worker.domain.duration import duration

_LINE_INTERVAL = 10.0  # seconds between lines, where there is no bar


class Advance(Protocol):
    """Call it with the number of items that were done since the last call, and with the position, if that differs."""

    def __call__(self, number: int, position: int | None = None) -> None: ...


@contextmanager
def progress(total: int | None, label: str) -> Iterator[Advance]:
    """``total`` is that of the items, or the last position; None if it is unknown.

    The bar and the lines show the rate, and the time to go where the total is known.
    """
    if total is not None and sys.stderr.isatty():
        with click.progressbar(length=total, label=label, file=sys.stderr, item_show_func=str) as bar:
            yield _Bar(bar).add
    else:
        yield _Lines(total, label).add


class _Rate:
    def __init__(self) -> None:
        self._start = time.monotonic()
        self.done = 0

    def per_second(self) -> float:
        return self.done / max(time.monotonic() - self._start, 0.001)

    def to_go(self, share: float) -> timedelta:
        return timedelta(seconds=(time.monotonic() - self._start) * (1 / share - 1))

    def __str__(self) -> str:
        return f"{self.done:,}, {self.per_second():,.0f}/s"


class _Bar:
    def __init__(self, bar: "click._termui_impl.ProgressBar[object]") -> None:
        self._bar = bar
        self._rate = _Rate()

    def add(self, number: int, position: int | None = None) -> None:
        self._rate.done += number
        self._bar.update(number if position is None else position - self._bar.pos, self._rate)


class _Lines:
    def __init__(self, total: int | None, label: str) -> None:
        self._total = total
        self._label = label
        self._rate = _Rate()
        self._next = time.monotonic() + _LINE_INTERVAL

    def add(self, number: int, position: int | None = None) -> None:
        self._rate.done += number
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_INTERVAL
            share = (self._rate.done if position is None else position) / self._total if self._total else 0
            to_go = f", {share:.0%} done, {duration(self._rate.to_go(share))} to go" if share else ""
            click.echo(f"{self._label}: {self._rate}{to_go}", err=True)
