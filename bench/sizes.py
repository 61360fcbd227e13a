"""The sizes of a measurement. The documented figures come from FULL; QUICK proves that everything runs."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Each of them can be set by ``--set name=value``, with commas in a list."""

    accounts: int = 40_000  # of throughput and memory
    seconds: float = 8.0  # of one turn
    turns: int = 6  # the number of orders of three contenders
    naive_accounts: int = 4_000
    latencies: tuple[int, ...] = (0, 150)  # milliseconds
    # The best numbers for each contender in short runs on two cores.
    children: int = 3
    children_waiting: int = 4  # if responses take time
    connections: int = 256  # of each child
    batch: int = 1_000
    floor_processes: int = 4
    floor_batch: int = 250  # and as many connections
    floor_processes_waiting: int = 8
    floor_batch_waiting: int = 150
    naive_children: int = 4
    naive_children_waiting: int = 24  # each waits for one response at a time, and needs no CPU meanwhile

    readers: int = 1_000  # accounts that are read
    reads: int = 3_000  # of each way in a turn
    read_turns: int = 7

    tables: tuple[int, ...] = (10_000, 100_000, 1_000_000)  # accounts
    batches: int = 1_000
    stretches: int = 6  # of the batches, each with a p99 of its own
    bloat_accounts: int = 20_000
    cycles: int = 10
    imports: int = 20_000

    first: int = 10_000  # refreshes
    refreshes: int = 110_000

    fleet: int = 100_000
    rate: int = 500  # requests per second
    ends: int = 10  # of an outage, half a minute apart, because there is a probe every five minutes

    def given(self, settings: Sequence[str]) -> Self:
        """These sizes with some replaced. Raises ValueError for an unknown name or a value that is no number."""
        kinds = {field.name: getattr(self, field.name) for field in fields(self)}
        changes: dict[str, object] = {}
        for setting in settings:
            name, _, value = setting.partition("=")
            if name not in kinds:
                raise ValueError(f"unknown size {name!r}; there are: {', '.join(kinds)}")
            changes[name] = _read(name, value, kinds[name])
        return replace(self, **changes)  # type: ignore[arg-type]  # each of the type of its field


def _read(name: str, value: str, like: Any) -> object:
    try:
        return tuple(map(int, value.split(","))) if isinstance(like, tuple) else type(like)(value)
    except ValueError:
        wanted = "whole numbers with commas" if isinstance(like, tuple) else "a number"
        raise ValueError(f"{name} must be {wanted}, not {value!r}") from None


FULL = Sizes()
QUICK = Sizes(
    accounts=600,
    seconds=1.0,
    turns=1,
    naive_accounts=60,
    latencies=(10,),
    children_waiting=2,
    floor_processes_waiting=1,
    naive_children_waiting=2,
    readers=20,
    reads=20,
    read_turns=1,
    tables=(1_000, 2_000),
    batches=4,
    bloat_accounts=1_000,
    cycles=2,
    imports=1_200,
    first=300,
    refreshes=900,
    fleet=1_000,
    rate=5,
    ends=2,
)
