"""Waits for a condition, on a machine that may be busy."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")

HANG_LIMIT = 180.0  # seconds; longer than any step on a busy machine, so that only a hang reaches it
_INTERVAL = 0.1  # seconds between two tests of the condition


class Running(Protocol):
    """A process that must not end during a wait."""

    def alive(self) -> bool: ...

    def output(self) -> str: ...


def wait_for(
    condition: Callable[[], T | None], *, about: str, processes: Sequence[Running] = (), seconds: float = HANG_LIMIT
) -> T:
    """The first truthy value of the condition.

    Raises AssertionError after ``seconds``, or as soon as one of the processes has ended.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        for process in processes:
            assert process.alive(), f"ended while waiting for {about}: {process.output()[-3000:]}"
        time.sleep(_INTERVAL)
    tails = "\n\n".join(process.output()[-2000:] for process in processes)
    msg = f"{about}: not within {seconds:.0f} s\n{tails}"
    raise AssertionError(msg)
