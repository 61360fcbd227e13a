"""Irregular time: clocks that differ from Microsoft's, daylight saving time, and a leap day."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from tests.constants import ANN, BOB, DAY, HOUR, MINUTE
from tests.integration.installation import Installation
from tests.integration.time_travel.checks import USUAL, assert_refreshed_by_schedule, read, refreshed_at
from tests.integration.time_travel.travel import Machine, Start

SWEEP = 10 * MINUTE
PRUNED_AT = {"00:17", "06:17", "12:17", "18:17"}  # in UTC, as in the schedule

EVE = timedelta(hours=9)  # long enough before a change for a refresh under the old offset
CHANGES = [
    pytest.param("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC) - EVE, id="New York in spring"),
    pytest.param("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC) - EVE, id="New York in autumn"),
    pytest.param("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=UTC) - EVE, id="Berlin in spring"),
    pytest.param("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC) - EVE, id="Berlin in autumn"),
]


@pytest.fixture(name="local_time")
def _local_time(request: pytest.FixtureRequest) -> Iterator[str]:
    """The time zone of the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


def assert_even(installation: Installation, machine: Machine, *emails: str) -> None:
    """No sweep and no refresh was early, late or left out, and the hourly tasks ran by UTC."""
    assert all(timedelta(0) <= gap - SWEEP < timedelta(seconds=1) for gap in gaps(machine.sent("sweep")))
    prunes = machine.sent("prune-events")
    assert {f"{at:%H:%M}" for at in prunes} <= PRUNED_AT
    assert all(abs(gap - 6 * HOUR) < timedelta(seconds=1) for gap in gaps(prunes))
    shortest, longest = USUAL
    for email in emails:
        between = gaps(refreshed_at(installation, email))
        assert shortest * 0.5 <= min(between)
        assert max(between) <= longest * 0.7 + SWEEP
    assert_refreshed_by_schedule(installation, *emails)


def gaps(instants: Sequence[datetime]) -> list[timedelta]:
    return [later - earlier for earlier, later in pairwise(instants)]


@pytest.mark.parametrize("error", [-5 * MINUTE, 5 * MINUTE], ids=["behind", "ahead"])
def test_microsofts_clock_may_be_five_minutes_off(installation: Installation, start: Start, error: timedelta) -> None:
    """An expiry is counted from the request on the worker's own clock. No time in a token is compared with it."""
    installation.emulator.clock = lambda: installation.clock() + error
    installation.sign_in(ANN, BOB, lifetime=USUAL)
    machine = start(SWEEP)

    machine.travel(DAY / 2, stop=lambda: read(installation, ANN, BOB))

    assert_even(installation, machine, ANN, BOB)


@pytest.mark.parametrize(("local_time", "clock"), CHANGES, indirect=True)
def test_daylight_saving_time_changes_nothing(local_time: str, installation: Installation, start: Start) -> None:
    """No hour is skipped or repeated in any time zone of the machine."""
    installation.sign_in(ANN, lifetime=USUAL)
    machine, before = start(SWEEP), installation.clock().astimezone().utcoffset()

    machine.travel(2 * EVE)

    assert installation.clock().astimezone().utcoffset() != before
    assert_even(installation, machine, ANN)


@pytest.mark.parametrize("clock", [datetime(2028, 2, 28, 22, tzinfo=UTC)], ids=["from its eve"], indirect=True)
def test_a_leap_day_is_a_day_like_any_other(installation: Installation, start: Start) -> None:
    """Expiries are computed in seconds, never in units of a calendar."""
    installation.sign_in(ANN, lifetime=USUAL)
    machine = start(SWEEP)

    machine.travel(27 * HOUR)

    assert f"{installation.clock():%m-%d}" == "03-01"
    assert sum(f"{at:%m-%d}" == "02-29" for at in refreshed_at(installation, ANN)) >= 20
    assert_even(installation, machine, ANN)
