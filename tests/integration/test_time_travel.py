"""The product's proof: an hour, a day, 90 days and a year pass, and nobody signs in again.

freezegun's time and Celery beat's own schedule, on real Postgres, Valkey, MSAL and TLS. The clocks of Postgres and
Valkey cannot be frozen and are wrong by months all the while, which must not matter either.
"""

from collections import Counter
from datetime import timedelta
from itertools import pairwise

import pytest

from tests.factories import NOW
from tests.integration.time_travel_world import (
    ANN,
    BOB,
    DAY,
    HOUR,
    MINUTE,
    NOT_PERSISTED,
    PERSISTED,
    RECOVERED,
    USUAL,
    World,
)
from tests.integration.time_travel_world import _clock as _clock
from tests.integration.time_travel_world import _emulator as _emulator
from tests.integration.time_travel_world import _world as _world
from worker.domain.account import Status
from worker.domain.errors import NeedsUser
from worker.vault import Purpose


def test_nothing_is_asked_while_nothing_is_due(world: World) -> None:
    """An account that comes with a live access token costs no request for the first half of its life."""
    world.sign_in(ANN, access_token_lifetime=HOUR)
    machine = world.start(MINUTE)

    machine.travel(29 * MINUTE, stop=lambda: world.read(ANN))

    assert machine.ran["worker.sweep"] > 25
    assert world.emulator.statistics().requests == 0


def test_what_becomes_due_is_refreshed_before_it_expires(world: World) -> None:
    """Due between half and seven tenths of the lifetime, done at the next sweep."""
    world.sign_in(ANN, access_token_lifetime=HOUR)
    [first] = world.read(ANN)
    machine = world.start(MINUTE)

    machine.travel(45 * MINUTE)

    [at] = world.refreshed_at(ANN)
    assert NOW + 30 * MINUTE <= at <= NOW + 43 * MINUTE
    [second] = world.read(ANN)
    assert second.expires_at == at + HOUR > first.expires_at
    world.assert_unattended(ANN)


@pytest.mark.parametrize(
    ("span", "sweep", "lifetime", "at_least"),
    [
        pytest.param(HOUR, MINUTE / 3, 10 * MINUTE, 8, id="an hour"),
        pytest.param(DAY, 10 * MINUTE, USUAL, 22, id="a day"),
        pytest.param(92 * DAY, 12 * HOUR, 2 * DAY, 50, id="90 days and two more"),
        pytest.param(365 * DAY, 12 * HOUR, 2 * DAY, 200, id="a year"),
    ],
)
def test_time_passes_and_nobody_signs_in_again(
    world: World, span: timedelta, sweep: timedelta, lifetime: timedelta, at_least: int
) -> None:
    """Ann's token is live whenever it is read. Bob's is read at the end only: being refreshed is what keeps an idle
    account alive when the refresh token it began with is long dead."""
    world.sign_in(ANN, BOB, access_token_lifetime=lifetime)
    first = world.emulator.newest_refresh_token(BOB)
    machine = world.start(sweep)

    machine.travel(span, stop=lambda: world.read(ANN), every=3)

    assert world.emulator.accepts(first) == (span < 90 * DAY)
    world.read(ANN, BOB)
    world.assert_unattended(ANN, BOB)
    assert len(world.refreshed_at(ANN)) >= at_least
    assert machine.ran["worker.prune_events"] == span // (6 * HOUR)
    assert not machine.failed


def test_an_account_left_alone_for_91_days_needs_its_user(world: World) -> None:
    """The counter-proof: without the worker the 90 days do end."""
    world.sign_in(ANN, access_token_lifetime=HOUR)
    machine = world.start(MINUTE)
    machine.travel(HOUR)

    world.clock.advance(91 * DAY)
    machine.travel(2 * MINUTE)

    assert world.account(ANN).status is Status.REAUTH_REQUIRED
    with pytest.raises(NeedsUser):
        world.read(ANN)


def test_an_account_left_alone_for_89_days_comes_back_by_itself(world: World) -> None:
    """A worker that was away for a whole season resumes at its first sweep."""
    world.sign_in(ANN, BOB, access_token_lifetime=HOUR)
    machine = world.start(MINUTE)
    machine.travel(HOUR)

    world.clock.advance(89 * DAY)
    machine.travel(2 * MINUTE)

    world.read(ANN, BOB)
    world.assert_unattended(ANN, BOB)


def test_a_rotated_refresh_token_is_stored_and_spent(world: World) -> None:
    """Microsoft's newest is what Postgres keeps; here a second use of an older one would end the sign-in."""
    world.sign_in(ANN, access_token_lifetime=HOUR, strict=True)
    machine = world.start(10 * MINUTE)

    machine.travel(DAY / 2)

    assert len(world.refreshed_at(ANN)) > 12
    chain = world.query("SELECT fingerprint_before, fingerprint_after FROM refresh_events ORDER BY id")
    assert all(earlier[1] == later[0] != later[1] for earlier, later in pairwise(chain))
    world.assert_unattended(ANN)


def test_the_refresh_token_before_is_kept_sealed(world: World) -> None:
    """Microsoft does not revoke it, so it is the way back if the newest should turn out unusable."""
    world.sign_in(ANN, access_token_lifetime=HOUR)
    machine = world.start(5 * MINUTE)

    for cycle in range(1, 4):
        before = world.emulator.newest_refresh_token(ANN)
        while len(world.refreshed_at(ANN)) < cycle:
            machine.travel(5 * MINUTE)
        assert world.opened(ANN, Purpose.PREVIOUS_REFRESH_TOKEN) == before
        assert world.emulator.accepts(before)
        [(kept,)] = world.query("SELECT previous_refresh_token FROM mail_credentials")
        assert before.encode() not in kept


def test_an_answer_without_a_refresh_token_keeps_the_old_one(world: World) -> None:
    """Absence is not an instruction: the token in use stays in use, cycle after cycle."""
    world.sign_in(ANN, access_token_lifetime=HOUR, rotate=False)
    only, issued_at = world.opened(ANN, Purpose.REFRESH_TOKEN), world.account(ANN).refresh_token_issued_at
    machine = world.start(10 * MINUTE)

    machine.travel(DAY / 2, stop=lambda: world.read(ANN), every=3)

    assert len(world.refreshed_at(ANN)) > 12
    assert world.opened(ANN, Purpose.REFRESH_TOKEN) == only == world.emulator.newest_refresh_token(ANN)
    assert world.account(ANN).refresh_token_issued_at == issued_at
    assert world.opened(ANN, Purpose.PREVIOUS_REFRESH_TOKEN) is None
    world.assert_unattended(ANN)


def test_each_refresh_is_told_once_with_its_account(world: World) -> None:
    """Operators search for the line by a mailbox's address; the others would say that a store had failed."""
    world.sign_in(ANN, BOB, access_token_lifetime=HOUR)
    machine = world.start(10 * MINUTE)

    machine.travel(5 * HOUR, stop=lambda: world.read(ANN, BOB))

    assert Counter(world.told(PERSISTED)) == {email: len(world.refreshed_at(email)) for email in (ANN, BOB)}
    assert world.told(RECOVERED) == world.told(NOT_PERSISTED) == []
