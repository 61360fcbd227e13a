"""Many accounts that were refreshed at one moment, by an import or after an outage, must not come back as one."""

from datetime import timedelta
from itertools import pairwise
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from tests.factories import NOW, make_claim, make_refreshed
from worker.domain.account import AccountId
from worker.domain.policy import RefreshPolicy

POLICY = RefreshPolicy()
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
CROWD = [AccountId(UUID(int=number)) for number in range(4000)]


def due_times(account: AccountId, *, until: timedelta) -> list[timedelta]:
    """When one of the crowd is refreshed after that moment."""
    now, version, times = NOW, 2, list[timedelta]()
    while now - NOW < until:
        refreshed = make_refreshed(obtained_at=now, expires_at=now + HOUR)
        now = POLICY.due_at(account, version, refreshed, in_backlog=version == 2)
        version += 1
        times.append(now - NOW)
    return times


def test_a_crowd_is_even_from_the_beginning() -> None:
    """In no quarter of an hour of the next six is much more asked than in another."""
    counts = [0] * 24
    for account in CROWD:
        for time in due_times(account, until=6 * HOUR):
            if time < 6 * HOUR:
                counts[time // (15 * MINUTE)] += 1

    mean = sum(counts) / len(counts)
    assert max(counts) < 1.1 * mean
    assert min(counts) > 0.9 * mean


def test_without_that_it_comes_back_as_a_wave() -> None:
    """What the others are for: the spread over a fifth of the lifetime alone leaves hours of waves."""
    refreshed = make_refreshed()

    first = [POLICY.due_at(account, 2, refreshed) - NOW for account in CROWD]

    assert min(first) >= 30 * MINUTE
    assert max(first) <= 42 * MINUTE


@given(account=st.uuids().map(AccountId), version=st.integers(1, 2**40))
def test_nobody_is_asked_about_twice_in_a_minute_or_too_late(account: AccountId, version: int) -> None:
    """Microsoft takes equal requests in a row for a loop, and a token must not end before its successor comes."""
    due = POLICY.due_at(account, version, make_refreshed(), in_backlog=True) - NOW

    assert MINUTE <= due <= 42 * MINUTE


def test_the_order_of_chances_is_kept() -> None:
    """The formula has two branches, which must meet."""
    chances = [POLICY._residual(number / 1000) for number in range(1000)]

    assert all(earlier < later for earlier, later in pairwise(chances))
    assert max(later - earlier for earlier, later in pairwise(chances[:990])) < 0.01


def test_the_claim_says_who_is_in_a_crowd() -> None:
    """And the plan listens."""
    planned = [POLICY.plan(make_claim(in_backlog=crowd), make_refreshed(), now=NOW).due_at for crowd in (False, True)]

    account = make_claim().account_id
    assert planned == [POLICY.due_at(account, 2, make_refreshed(), in_backlog=crowd) for crowd in (False, True)]
    assert planned[0] != planned[1]
