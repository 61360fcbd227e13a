"""The simulated hours agree with what the schedule does."""

import pytest

from worker.domain.simulation import FleetAhead, simulate

_STEADY = FleetAhead(due=dict.fromkeys(range(45), 100), daily={}, lifetime=75, grants_ending={})


def test_a_steady_fleet_stays_steady() -> None:
    """4,500 accounts whose tokens live for 75 minutes: a hundred requests a minute, for ever."""
    played = simulate(_STEADY, minutes=360, rate=500)

    assert all(minute.waiting == minute.without_token == 0 for minute in played)
    assert 90 < sum(minute.requests for minute in played[180:]) / 180 < 110


def test_a_rate_that_is_too_low_lets_accounts_wait() -> None:
    """A request a second are 60 a minute, of the hundred that are due."""
    played = simulate(_STEADY, minutes=360, rate=1)

    assert max(minute.requests for minute in played) == 60
    assert played[20].waiting == 21 * 40
    assert played[-1].without_token > 0


def test_an_outage_ends_in_a_peak_that_the_rate_limits() -> None:
    """Two hours without an answer: every token ends. Then all are refreshed, the longest overdue first."""
    played = simulate(_STEADY, minutes=360, rate=10, outages=[(60, 120)])

    assert [minute.requests for minute in played[60:180]] == [0] * 120
    assert played[60 + 20].without_token == 0
    assert played[179].waiting == pytest.approx(4_500, rel=0.01)
    assert played[179].without_token > 4_000
    assert [minute.requests for minute in played[180:187]] == [600] * 7
    assert played[188].waiting == 0
    assert max(minute.requests for minute in played[200:]) < 200


def test_new_accounts_are_refreshed_at_once_and_then_spread() -> None:
    played = simulate(_STEADY, minutes=360, rate=100, added=45_000)

    assert [minute.requests for minute in played[:7]] == [6_000] * 7
    assert played[0].without_token >= 38_000
    assert max(minute.requests for minute in played[60:]) < 2_000


def test_accounts_that_need_their_user_are_asked_about_once_a_day() -> None:
    fleet = FleetAhead(due={}, daily={0: 500, 2_000: 7}, lifetime=75, grants_ending={})

    played = simulate(fleet, minutes=360, rate=500)

    assert sum(minute.requests for minute in played) == 500


def test_an_empty_fleet_sends_nothing() -> None:
    played = simulate(FleetAhead(due={}, daily={}, lifetime=75, grants_ending={}), minutes=60, rate=500)

    assert {minute.requests for minute in played} == {0}
