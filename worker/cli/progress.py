"""Progress of a long command, on standard error: a bar on a terminal, elsewhere a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

_LINE_INTERVAL = 10.0  # seconds between lines, where there is no terminal


@contextmanager
def progress(total: int, label: str) -> Iterator[Callable[[int], None]]:
    """Call the result with the number of items that were done since the last call."""
    if sys.stderr.isatty():
        with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
            yield bar.update
    else:
        yield _Lines(total, label).add


class _Lines:
    def __init__(self, total: int, label: str) -> None:
        self._total = total
        self._label = label
        self._done = 0
        self._next = time.monotonic() + _LINE_INTERVAL

    def add(self, number: int) -> None:
        self._done += number
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_INTERVAL
            click.echo(f"{self._label}: {self._done} of {self._total}", err=True)
