"""Which of the leased accounts belong to a backlog. The policy spreads their next due times."""

from datetime import datetime, timedelta

import pytest

from tests.constants import ANN, BOB, CAT, DAN, HOUR, MINUTE
from tests.factories import NOW
from tests.integration.db.rows import Rows, grant, refreshed

FOUR = (ANN, BOB, CAT, DAN)


def in_backlog_of_batch(rows: Rows, *, now: datetime = NOW, in_backlog: bool = True) -> list[bool]:
    return [lease.in_backlog for lease in rows.lease_due(limit=3, now=now, in_backlog=in_backlog)]


def refresh_all(rows: Rows, *, due_at: timedelta) -> None:
    rows.save(*map(grant, FOUR), now=NOW - HOUR)
    rows.persist(*(refreshed(lease, due_at=NOW + due_at) for lease in rows.lease_due()))


def test_imported_accounts_are_a_backlog(rows: Rows) -> None:
    """All are new, and there are more than fit into a batch."""
    rows.save(*map(grant, FOUR))

    assert in_backlog_of_batch(rows) == [True, True, True]


def test_without_a_backlog_no_account_is_in_one(rows: Rows) -> None:
    """Refreshing a single mailbox early would be a waste."""
    rows.save(*map(grant, FOUR))

    assert in_backlog_of_batch(rows, in_backlog=False) == [False, False, False]


@pytest.mark.parametrize(("late", "expected"), [(9, [False, False, False]), (11, [True, True, True])])
def test_accounts_that_are_late_after_an_outage_are_a_backlog(rows: Rows, late: int, expected: list[bool]) -> None:
    """A short wait is normal in a large fleet and must not cause more refreshes."""
    refresh_all(rows, due_at=timedelta(0))

    assert in_backlog_of_batch(rows, now=NOW + late * MINUTE) == expected


def test_a_new_sign_in_makes_an_account_new_again(rows: Rows) -> None:
    """An import of accounts that exist already is an import."""
    refresh_all(rows, due_at=HOUR)
    rows.save(*map(grant, FOUR), now=NOW + 2 * HOUR)

    assert in_backlog_of_batch(rows, now=NOW + 2 * HOUR) == [True, True, True]
