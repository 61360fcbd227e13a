"""How failures in a row add up: strikes before a death sentence, and waits that grow."""

from datetime import timedelta
from itertools import pairwise

import pytest

from tests.integration.service.house import ANN, BOB, HOUR, MINUTE, House
from worker.devkit.emulator import Fault, RawAnswer, oauth_error
from worker.domain.account import Status, account_id
from worker.domain.errors import AccountError

_UNPROVEN = oauth_error("AADSTS999999")
_PERSONAL = oauth_error("AADSTS700016")  # not about the whole app, so the breaker stays closed
_BUSY = RawAnswer(b"", 503)


def _refresh(house: House, fault: Fault | None = None, *, after: timedelta = timedelta(0)) -> Status:
    """Let time pass, and the schedule ask, if the account is due by then."""
    house.clock.now += after
    house.emulator.clear_faults()
    if fault:
        house.emulator.add_fault(fault)
    house.services.refresher.refresh_due()
    return house.account().status


def test_three_unproven_refusals_over_ten_minutes_are_proof(house: House) -> None:
    """Entra says invalid_grant for much that passes: one is no reason to bother a user, three in a row are."""
    house.enrol(ANN)

    states = [_refresh(house, _UNPROVEN, after=after) for after in (0 * MINUTE, 5 * MINUTE, 5 * MINUTE)]

    assert states == [Status.ACTIVE, Status.ACTIVE, Status.REAUTH_REQUIRED]
    assert house.asked() == 3
    failure = house.account().failure
    assert failure
    assert (failure.count, failure.since) == (3, house.clock() - 10 * MINUTE)


def test_three_unproven_refusals_within_ten_minutes_are_none(house: House) -> None:
    """An operator's impatience, or many readers, must not condemn an account for one bad minute of Microsoft's."""
    house.enrol(ANN)
    house.emulator.add_fault(_UNPROVEN)

    for _ in range(5):
        with pytest.raises(AccountError):
            house.services.on_demand.refresh(account_id(ANN))
        house.clock.advance(minutes=1)

    assert house.asked() == 5
    assert house.account().status is Status.ACTIVE


def test_a_success_in_between_forgives_the_strikes(house: House) -> None:
    """The grant was not dead then."""
    house.enrol(ANN)
    _refresh(house, _UNPROVEN)
    _refresh(house, _UNPROVEN, after=5 * MINUTE)
    _refresh(house, after=5 * MINUTE)

    assert _refresh(house, _UNPROVEN, after=2 * HOUR) is Status.ACTIVE
    failure = house.account().failure
    assert failure
    assert failure.count == 1


def test_waits_double_up_to_a_quarter_of_an_hour(house: House) -> None:
    """From Microsoft's five seconds on; the spread of a half keeps a failing fleet from marching in step."""
    house.enrol(ANN)
    waits = []
    for _ in range(12):
        _refresh(house, _BUSY)
        due = house.account().due_at
        assert due
        waits.append((due - house.clock()).total_seconds())
        house.clock.now = due

    for attempt, wait in enumerate(waits):
        base = min(5 * 2**attempt, 600)
        assert base <= wait <= 1.5 * base
    assert all(later > earlier for earlier, later in pairwise(waits[:7:2]))
    assert house.asked() == 12


def test_accounts_that_fail_together_do_not_come_back_together(house: House) -> None:
    """An outage gathers the whole fleet at one instant; the retries must not repeat that."""
    emails = [f"user{number}@contoso.com" for number in range(20)]
    house.enrol(*emails)

    house.emulator.add_fault(_PERSONAL)
    house.services.refresher.refresh_due()

    assert len({account.due_at for account in house.services.accounts.list()}) == 20


def test_retry_after_wins_over_our_own_patience(house: House) -> None:
    """Microsoft counts what comes too early, and prolongs the punishment."""
    house.enrol(ANN)
    wait = timedelta(seconds=1234)
    _refresh(house, oauth_error("AADSTS90055", retry_after=1234))

    _refresh(house, after=wait - timedelta(seconds=1))
    assert house.asked() == 1
    assert _refresh(house, after=timedelta(seconds=1) + wait / 10) is Status.ACTIVE
    assert house.asked() == 2


def test_one_account_s_wait_is_its_own(house: House) -> None:
    """The others of the batch go on in time."""
    house.enrol(ANN, BOB)
    house.emulator.add_fault(_BUSY, ANN)

    tally = house.services.refresher.refresh_due()

    assert tally == {"claimed": 2, "transient": 1, "refreshed": 1}
    assert house.account(BOB).failure is None


def test_the_wait_grows_whoever_asks(house: House) -> None:
    """A consumer's failed refresh is a failed refresh: the schedule goes on from there."""
    house.enrol(ANN)
    house.emulator.add_fault(_BUSY)
    with pytest.raises(AccountError):
        house.services.tokens.get(ANN)
    house.clock.advance(seconds=8)

    house.services.refresher.refresh_due()

    failure = house.account().failure
    assert failure
    assert (failure.kind, failure.count) == ("transient", 2)
    assert [line["trigger"] for line in house.services.events.latest(account_id(ANN))] == ["schedule", "consumer"]
