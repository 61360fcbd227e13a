"""How those who wait for places in a queue take turns. Pure."""

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice


def in_turn(wanted: Mapping[str, int], places: int, *, first: int) -> list[str]:
    """Who gets each place, dealt one by one as long as anybody wants more.

    ``first``: who begins, counted round among those who want any. Whoever always began would get all there is where
    there is one place at a time.
    """
    waiting = deque(name for name, number in wanted.items() if number > 0)
    waiting.rotate(-first)
    return list(islice(_dealt(waiting, wanted), places))


def _dealt(names: deque[str], wanted: Mapping[str, int]) -> Iterator[str]:
    for dealt in range(max(wanted.values(), default=0)):
        yield from (name for name in names if wanted[name] > dealt)
