"""The product's proof: an hour, a day, 90 days and a year pass without a new sign-in.

freezegun's time and Celery beat's own schedule run on real Postgres, Valkey, MSAL and TLS. The clocks of Postgres and
Valkey cannot be frozen. They are wrong by months meanwhile, which must have no effect either.
"""

from collections import Counter
from datetime import timedelta

import pytest

from tests.constants import ANN, BOB, DAY, HOUR, MINUTE, NOT_PERSISTED, PERSISTED, RECOVERED
from tests.factories import NOW
from tests.integration.installation import Installation
from tests.integration.time_travel.checks import USUAL, assert_refreshed_by_schedule, read, refreshed_at
from tests.integration.time_travel.travel import Start
from worker.domain.account import Status
from worker.domain.errors import NeedsUser
from worker.vault import Purpose


def test_no_request_is_sent_while_no_account_is_due(installation: Installation, start: Start) -> None:
    """An account with a live access token causes no request for the first half of the token's life."""
    installation.sign_in(ANN, lifetime=HOUR)
    machine = start(MINUTE)

    machine.travel(29 * MINUTE, stop=lambda: read(installation, ANN))

    assert machine.ran["worker.sweep"] > 25
    assert installation.requests == 0


def test_a_due_account_is_refreshed_before_its_token_expires(installation: Installation, start: Start) -> None:
    """It is due between half and seven tenths of the lifetime, and refreshed at the next sweep."""
    installation.sign_in(ANN, lifetime=HOUR)
    [first] = read(installation, ANN)
    machine = start(MINUTE)

    machine.travel(45 * MINUTE)

    [at] = refreshed_at(installation, ANN)
    assert NOW + 30 * MINUTE <= at <= NOW + 43 * MINUTE
    [second] = read(installation, ANN)
    assert second.expires_at == at + HOUR > first.expires_at
    assert_refreshed_by_schedule(installation, ANN)


@pytest.mark.parametrize(
    ("span", "sweep", "lifetime", "at_least"),
    [
        pytest.param(HOUR, MINUTE / 3, 10 * MINUTE, 8, id="an hour"),
        pytest.param(DAY, 10 * MINUTE, USUAL, 22, id="a day"),
        pytest.param(92 * DAY, 12 * HOUR, 2 * DAY, 50, id="90 days and two more"),
        pytest.param(365 * DAY, 12 * HOUR, 2 * DAY, 200, id="a year"),
    ],
)
def test_time_passes_without_a_new_sign_in(
    installation: Installation, start: Start, *, span: timedelta, sweep: timedelta, lifetime: timedelta, at_least: int
) -> None:
    """Ann's token is live whenever it is read.

    Bob's is read only at the end. Refreshes keep an idle account alive when its first refresh token is long dead.
    """
    installation.sign_in(ANN, BOB, lifetime=lifetime)
    first = installation.emulator.newest_refresh_token(BOB)
    machine = start(sweep)

    machine.travel(span, stop=lambda: read(installation, ANN), every=3)

    assert installation.emulator.accepts(first) == (span < 90 * DAY)
    read(installation, ANN, BOB)
    assert_refreshed_by_schedule(installation, ANN, BOB)
    assert len(refreshed_at(installation, ANN)) >= at_least
    assert machine.ran["worker.prune_events"] == span // (6 * HOUR)
    assert not machine.failed


def test_an_account_without_a_refresh_for_91_days_needs_its_user(installation: Installation, start: Start) -> None:
    """The counter-proof: without the worker the grant ends after 90 days."""
    installation.sign_in(ANN, lifetime=HOUR)
    machine = start(MINUTE)
    machine.travel(HOUR)

    installation.clock.advance(days=91)
    machine.travel(2 * MINUTE)

    assert installation.account(ANN).status is Status.REAUTH_REQUIRED
    with pytest.raises(NeedsUser):
        read(installation, ANN)


def test_an_account_without_a_refresh_for_89_days_recovers_by_itself(installation: Installation, start: Start) -> None:
    """A worker that was stopped for a whole season resumes at its first sweep."""
    installation.sign_in(ANN, BOB, lifetime=HOUR)
    machine = start(MINUTE)
    machine.travel(HOUR)

    installation.clock.advance(days=89)
    machine.travel(2 * MINUTE)

    read(installation, ANN, BOB)
    assert_refreshed_by_schedule(installation, ANN, BOB)


def test_a_rotated_refresh_token_is_stored_and_used(installation: Installation, start: Start) -> None:
    """Postgres stores Microsoft's newest refresh token. Here a second use of an older one would end the sign-in."""
    installation.sign_in(ANN, lifetime=HOUR, strict=True)
    machine = start(10 * MINUTE)

    machine.travel(DAY / 2)

    assert len(refreshed_at(installation, ANN)) > 12
    assert_refreshed_by_schedule(installation, ANN)


def test_a_response_without_a_refresh_token_keeps_the_old_one(installation: Installation, start: Start) -> None:
    """A missing refresh token in the response means that the old one stays valid, cycle after cycle."""
    installation.sign_in(ANN, lifetime=HOUR, rotate=False)
    only, issued_at = (
        installation.stored_secret(Purpose.REFRESH_TOKEN, ANN),
        installation.account(ANN).refresh_token_issued_at,
    )
    machine = start(10 * MINUTE)

    machine.travel(DAY / 2, stop=lambda: read(installation, ANN), every=3)

    assert len(refreshed_at(installation, ANN)) > 12
    assert (
        installation.stored_secret(Purpose.REFRESH_TOKEN, ANN)
        == only
        == installation.emulator.newest_refresh_token(ANN)
    )
    assert installation.account(ANN).refresh_token_issued_at == issued_at
    assert_refreshed_by_schedule(installation, ANN)


def test_each_refresh_is_logged_once_with_its_account(installation: Installation, start: Start) -> None:
    """Operators search this line by a mailbox's address. Further lines would report that a store had failed."""
    installation.sign_in(ANN, BOB, lifetime=HOUR)
    machine = start(10 * MINUTE)

    machine.travel(5 * HOUR, stop=lambda: read(installation, ANN, BOB))

    assert Counter(installation.logged(PERSISTED)) == {
        email: len(refreshed_at(installation, email)) for email in (ANN, BOB)
    }
    assert installation.logged(RECOVERED) == installation.logged(NOT_PERSISTED) == []
