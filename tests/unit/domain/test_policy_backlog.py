"""Many accounts that were refreshed at the same time, after an import or an outage, must not be due together."""

from datetime import timedelta
from itertools import pairwise
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from tests.factories import NOW, make_lease, make_refreshed
from worker.domain.account import AccountId
from worker.domain.policy import RefreshPolicy

POLICY = RefreshPolicy()
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
BACKLOG = [AccountId(UUID(int=number)) for number in range(4000)]


def due_times(account: AccountId, *, until: timedelta) -> list[timedelta]:
    """The times after that at which an account of the backlog is refreshed."""
    now, version, times = NOW, 2, list[timedelta]()
    while now - NOW < until:
        refreshed = make_refreshed(obtained_at=now, expires_at=now + HOUR)
        now = POLICY.due_at(account, version, refreshed, in_backlog=version == 2)
        version += 1
        times.append(now - NOW)
    return times


def test_the_refreshes_of_a_backlog_are_even_from_the_beginning() -> None:
    """Each quarter of an hour of the next six hours has about the same number of refreshes."""
    counts = [0] * 24
    for account in BACKLOG:
        for time in due_times(account, until=6 * HOUR):
            if time < 6 * HOUR:
                counts[time // (15 * MINUTE)] += 1

    mean = sum(counts) / len(counts)
    assert max(counts) < 1.1 * mean
    assert min(counts) > 0.9 * mean


def test_without_that_the_refreshes_come_in_waves() -> None:
    """The usual spread over a fifth of the lifetime leaves waves for hours."""
    refreshed = make_refreshed()

    first = [POLICY.due_at(account, 2, refreshed) - NOW for account in BACKLOG]

    assert min(first) >= 30 * MINUTE
    assert max(first) <= 42 * MINUTE


@given(account=st.uuids().map(AccountId), version=st.integers(1, 2**40))
def test_no_account_is_refreshed_twice_in_a_minute_or_too_late(account: AccountId, version: int) -> None:
    """Microsoft reports equal requests in a row as a loop, and a token must not expire before it is replaced."""
    due = POLICY.due_at(account, version, make_refreshed(), in_backlog=True) - NOW

    assert MINUTE <= due <= 42 * MINUTE


def test_the_spread_of_a_backlog_is_monotonic() -> None:
    """The formula has two branches, which must join without a gap."""
    chances = [POLICY._residual(number / 1000) for number in range(1000)]

    assert all(earlier < later for earlier, later in pairwise(chances))
    assert max(later - earlier for earlier, later in pairwise(chances[:990])) < 0.01


def test_the_lease_says_whether_an_account_is_in_a_backlog() -> None:
    """The plan follows it."""
    planned = [
        POLICY.plan(make_lease(in_backlog=in_backlog), make_refreshed(), now=NOW).due_at for in_backlog in (False, True)
    ]

    account = make_lease().account_id
    assert planned == [
        POLICY.due_at(account, 2, make_refreshed(), in_backlog=in_backlog) for in_backlog in (False, True)
    ]
    assert planned[0] != planned[1]
