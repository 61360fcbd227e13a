"""Quantiles over stretches of a series."""

import pytest

from bench.quantiles import _parts, p99


@pytest.mark.parametrize(("length", "number", "lengths"), [(12, 3, [4, 4, 4]), (7, 3, [2, 2, 3]), (6, 1, [6])])
def test_parts_hold_everything_once_and_in_order(length: int, number: int, lengths: list[int]) -> None:
    spent = [float(each) for each in range(length)]
    parts = _parts(spent, number)
    assert [len(part) for part in parts] == lengths
    assert [each for part in parts for each in part] == spent


def test_no_part_has_less_than_two() -> None:
    assert [len(part) for part in _parts([1.0] * 5, 6)] == [2, 3]


def test_stall_in_one_stretch_is_not_the_p99_of_all() -> None:
    calm, stalled = [1.0] * 100, [1.0] * 98 + [500.0] * 2
    assert p99(calm + stalled + calm, 3) == 1.0


def test_slow_values_in_every_stretch_are_the_p99() -> None:
    assert p99(([1.0] * 97 + [9.0] * 3) * 3, 3) == 9.0
