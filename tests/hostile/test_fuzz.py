"""The short form of fuzzing: the same inputs in every run. `make fuzz` is the long form."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.doors import DOORS, Door, Reader, open_reader
from worker.devkit.stack import Stack

_EXAMPLES = 60  # for each door


@pytest.fixture(scope="module", name="reader")
def _reader(stack: Stack) -> Iterator[Reader]:
    with open_reader(stack) as reader:
        yield reader


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_no_input_raises_anything_unexpected(reader: Reader, door: Door) -> None:
    @settings(
        max_examples=_EXAMPLES, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(door.inputs)
    def enter(value: st.DataObject) -> None:
        door.enter(reader, value)

    enter()
