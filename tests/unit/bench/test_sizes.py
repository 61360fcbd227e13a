"""Sizes of the command line."""

import pytest

from bench.sizes import FULL, QUICK


def test_given_sizes_replace_their_own_and_no_other() -> None:
    given = FULL.given(["turns=2", "seconds=0.5", "tables=10,20"])
    assert (given.turns, given.seconds, given.tables) == (2, 0.5, (10, 20))
    assert given.accounts == FULL.accounts


def test_no_given_size_changes_nothing() -> None:
    assert QUICK.given([]) == QUICK


@pytest.mark.parametrize(
    ("setting", "mistake"),
    [
        ("turns=x", "^turns must be a number, not 'x'$"),
        ("turns=1.5", "^turns must be a number, not '1.5'$"),
        ("turns", "^turns must be a number, not ''$"),
        ("tables=1,x", "^tables must be whole numbers with commas, not '1,x'$"),
        ("trun=1", "^unknown size 'trun'; there are: accounts, "),
    ],
)
def test_error_names_the_size(setting: str, mistake: str) -> None:
    with pytest.raises(ValueError, match=mistake):
        FULL.given([setting])
