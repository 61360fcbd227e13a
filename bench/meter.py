"""CPU time of process trees, from /proc. The time of an ended child counts once its parent has waited for it."""

import os
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat, counted from the one after the name: ppid, utime to cstime, rss.
_PARENT, _FIRST_TIME, _LAST_TIME, _RSS = 1, 11, 15, 21
_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(roots: Iterable[int]) -> float:
    """The user and system time of these processes and all below them, in seconds."""
    table = _table()
    return sum(sum(map(int, table[pid][_FIRST_TIME:_LAST_TIME])) for pid in _family(table, roots)) / _TICKS


def resident(pid: int) -> int:
    """The resident memory of one process, in bytes."""
    return int(_table()[pid][_RSS]) * _PAGE


def children(pid: int) -> list[int]:
    """The ids of the direct children."""
    return [child for child, fields in _table().items() if int(fields[_PARENT]) == pid]


def _family(table: dict[int, list[str]], roots: Iterable[int]) -> set[int]:
    family = {root for root in roots if root in table}
    while grown := {pid for pid, fields in table.items() if int(fields[_PARENT]) in family} - family:
        family |= grown
    return family


def _table() -> dict[int, list[str]]:
    table = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            table[int(stat.parent.name)] = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # the process has just ended
    return table
