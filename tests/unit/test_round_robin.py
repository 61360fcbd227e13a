"""Places dealt in turn: a long line does not stand in front of a short one."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.service.refresh.refresher import round_robin

lines = st.dictionaries(st.sampled_from("abcde"), st.integers(min_value=0, max_value=9))


@pytest.mark.parametrize(
    ("places", "first", "dealt"),
    [(0, 0, ""), (1, 0, "a"), (1, 1, "b"), (1, 2, "a"), (4, 0, "abab"), (9, 1, "babaaa"), (5, 0, "ababa")],
)
def test_places_are_dealt_one_by_one(places: int, first: int, dealt: str) -> None:
    """Until there are no more, or nobody wants more; who wants none has no turn."""
    assert "".join(round_robin({"a": 4, "none": 0, "b": 2}, places, first=first)) == dealt


def test_nobody_gets_nothing() -> None:
    """A process without an app registration sweeps too."""
    assert round_robin({}, 64, first=7) == []


@given(wanted=lines, places=st.integers(0, 64), first=st.integers(0, 9))
def test_nobody_gets_two_more_than_another_who_wants_more(wanted: dict[str, int], places: int, first: int) -> None:
    """All places are given if they are wanted, none to who does not want it, and nobody waits for the others' rest."""
    dealt = Counter(round_robin(wanted, places, first=first))

    assert dealt.total() == min(places, sum(wanted.values()))
    assert all(dealt[name] <= number for name, number in wanted.items())
    short = [dealt[name] for name, number in wanted.items() if dealt[name] < number]
    assert max(dealt.values(), default=0) <= min(short, default=99) + 1


@given(wanted=lines, places=st.integers(1, 3))
def test_everybody_comes_first_in_time(wanted: dict[str, int], places: int) -> None:
    """However few places there are at a time."""
    served = {name for first in range(5) for name in round_robin(wanted, places, first=first)}

    assert served == {name for name, number in wanted.items() if number}
