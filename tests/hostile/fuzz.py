"""The long form of fuzzing: ``make fuzz``. Each door gets random input for its share of the time, from new seeds.

It stops at the first input that makes a door raise, and prints it. The table goes into docs/fuzzing.md.
"""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from hypothesis import HealthCheck, given, seed, settings

from tests.hostile.doors import DOORS, Door, Reader, open_reader
from worker.devkit.stack import Stack

_DOCUMENT = Path(__file__).parents[2] / "docs" / "fuzzing.md"
_BEGIN, _END = "<!-- written by make fuzz -->", "<!-- until here -->"
_SLICE = 500  # inputs between two looks at the time


def main() -> None:
    seconds = float(os.environ.get("FUZZ_SECONDS", "600"))
    os.nice(10)
    counts: list[int] = []
    with Stack(durable=False) as stack, open_reader(stack) as reader:
        for door in DOORS:
            counts.append(_knock(reader, door, seconds / len(DOORS)))
            click.echo(f"{door.source}, {door.name}: {counts[-1]:,}")
    _write([*_table(counts), "", f"Seconds: {seconds:.0f}. Findings: 0."])


def _knock(reader: Reader, door: Door, seconds: float) -> int:
    """The number of inputs."""
    until, number, count = time.monotonic() + seconds, time.time_ns() & 0xFFFF_FFFF, 0

    def enter(value: object) -> None:
        nonlocal count
        count += 1
        door.enter(reader, value)

    options = settings(
        max_examples=_SLICE,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    while time.monotonic() < until:
        options(seed(number)(given(door.inputs)(enter)))()
        number += 1
    return count


def _table(counts: Sequence[int]) -> Iterator[str]:
    yield "| from | read | inputs |"
    yield "| --- | --- | ---: |"
    for door, count in zip(DOORS, counts, strict=True):
        yield f"| {door.source} | {door.name} | {count:,} |"
    yield f"| | all | {sum(counts):,} |"


def _write(lines: Sequence[str]) -> None:
    """Replace the generated part of the document."""
    before, _, rest = _DOCUMENT.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    _DOCUMENT.write_text("\n".join([before + _BEGIN, "", *lines, "", _END]) + after)


if __name__ == "__main__":
    main()
