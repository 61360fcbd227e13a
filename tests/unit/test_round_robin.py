"""Round robin gives the places of a queue in turn, so that a long backlog does not delay a short one."""

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
    """It ends when there are no more places or no more requests. A name that wants none gets no turn."""
    assert "".join(round_robin({"a": 4, "none": 0, "b": 2}, places, first=first)) == dealt


def test_without_names_no_place_is_dealt() -> None:
    """A process without an app registration sweeps, too."""
    assert round_robin({}, 64, first=7) == []


@given(wanted=lines, places=st.integers(0, 64), first=st.integers(0, 9))
def test_a_name_that_wants_more_gets_at_most_one_place_less(wanted: dict[str, int], places: int, first: int) -> None:
    """All wanted places are given, and no name gets more than it wants."""
    dealt = Counter(round_robin(wanted, places, first=first))

    assert dealt.total() == min(places, sum(wanted.values()))
    assert all(dealt[name] <= number for name, number in wanted.items())
    short = [dealt[name] for name, number in wanted.items() if dealt[name] < number]
    assert max(dealt.values(), default=0) <= min(short, default=99) + 1


@given(wanted=lines, places=st.integers(1, 3))
def test_every_name_gets_a_place_in_some_round(wanted: dict[str, int], places: int) -> None:
    """This holds even with one place per round."""
    served = {name for first in range(5) for name in round_robin(wanted, places, first=first)}

    assert served == {name for name, number in wanted.items() if number}
