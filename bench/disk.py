"""The time that the disk needs without Postgres."""

import os
import time
from pathlib import Path

from bench.quantiles import p99


class Disk:
    """The time that the disk needs for a write, beside the load of the stores. No commit can wait less."""

    _PIECES = 64  # of the file

    def __init__(self, directory: Path) -> None:
        self._file = os.open(directory / "synced", os.O_RDWR | os.O_CREAT)
        self._piece = os.urandom(1_000_000)  # a batch of 250 writes 2 to 4 MB of log
        self._spent: list[float] = []
        for _ in range(self._PIECES):
            os.write(self._file, self._piece)
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def work(self) -> None:
        """Write a piece over an old one, as Postgres does with its log, and sync it."""
        begin = time.perf_counter()
        os.pwrite(self._file, self._piece, len(self._spent) % self._PIECES * len(self._piece))
        os.fdatasync(self._file)
        self._spent.append((time.perf_counter() - begin) * 1000)

    def p99(self, stretches: int) -> float:
        """The p99 in milliseconds, the median of so many stretches."""
        return p99(self._spent, stretches)
