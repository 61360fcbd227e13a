"""Counts the load that a consumer puts on the stores: SQL statements of this process, and commands that reach Redis."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis
from sqlalchemy import Engine, event

_OURS = {"info"}  # sent by the counting itself


@contextmanager
def statements() -> Iterator[list[str]]:
    """The statements that any connection pool of this process sends inside the block."""
    statements: list[str] = []

    def listen(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", listen)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", listen)


@contextmanager
def commands(redis: Redis) -> Iterator[Counter[str]]:
    """The commands that Redis executes inside the block, filled in at its end."""
    before, found = so_far(redis), Counter[str]()
    yield found
    found.update(so_far(redis) - before)


def so_far(redis: Redis) -> Counter[str]:
    """The commands that Redis has executed for any client. They show how far another thread has got."""
    stats: Any = redis.info("commandstats")
    counts = {name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()}
    return Counter({name: calls for name, calls in counts.items() if name not in _OURS})
