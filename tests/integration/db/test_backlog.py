"""Which of the accounts that are claimed together are out of step: their policy spreads them anew."""

from datetime import datetime, timedelta

import pytest

from tests.constants import ANN, BOB, CAT, DAN, HOUR, MINUTE
from tests.factories import NOW
from tests.integration.db.rows import Rows, grant, refreshed

FOUR = (ANN, BOB, CAT, DAN)


def crowded(rows: Rows, *, now: datetime = NOW, in_backlog: bool = True) -> list[bool]:
    return [claim.in_backlog for claim in rows.claim(limit=3, now=now, in_backlog=in_backlog)]


def refresh_all(rows: Rows, *, due_at: timedelta) -> None:
    rows.save(*map(grant, FOUR), now=NOW - HOUR)
    rows.persist(*(refreshed(claim, due_at=NOW + due_at) for claim in rows.claim()))


def test_those_of_an_import_are_a_crowd(rows: Rows) -> None:
    """They are all new, and there are more than a batch holds."""
    rows.save(*map(grant, FOUR))

    assert crowded(rows) == [True, True, True]


def test_without_a_crowd_nobody_is_in_one(rows: Rows) -> None:
    """Refreshing one mailbox early would be a waste."""
    rows.save(*map(grant, FOUR))

    assert crowded(rows, in_backlog=False) == [False, False, False]


@pytest.mark.parametrize(("late", "expected"), [(9, [False, False, False]), (11, [True, True, True])])
def test_after_an_outage_they_are_a_crowd(rows: Rows, late: int, expected: list[bool]) -> None:
    """Waiting for its turn for a while is nothing special in a large fleet, and must not make it refresh more often."""
    refresh_all(rows, due_at=timedelta(0))

    assert crowded(rows, now=NOW + late * MINUTE) == expected


def test_a_new_sign_in_counts_anew(rows: Rows) -> None:
    """An import of accounts that are there already is an import."""
    refresh_all(rows, due_at=HOUR)
    rows.save(*map(grant, FOUR), now=NOW + 2 * HOUR)

    assert crowded(rows, now=NOW + 2 * HOUR) == [True, True, True]
