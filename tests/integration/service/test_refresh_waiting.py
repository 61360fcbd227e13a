"""Failures in a row: strikes until a grant counts as dead, and waits that grow."""

from datetime import timedelta
from itertools import pairwise

import pytest

from tests.constants import ANN, BOB, HOUR, MINUTE
from tests.integration.installation import Installation
from worker.devkit.emulator import Fault, RawAnswer, oauth_error
from worker.domain.account import Status, account_id
from worker.domain.errors import AccountError

_UNPROVEN = oauth_error("AADSTS999999")
_PERSONAL = oauth_error("AADSTS700016")  # is not about the whole app, so the breaker stays closed
_BUSY = RawAnswer(b"", 503)


def _refresh(installation: Installation, fault: Fault | None = None, *, after: timedelta = timedelta(0)) -> Status:
    """Let time pass, and run a batch if the account is due by then."""
    installation.clock.now += after
    installation.emulator.clear_faults()
    if fault:
        installation.emulator.add_fault(fault)
    installation.refresh_due()
    return installation.account().status


def test_three_unproven_refusals_over_ten_minutes_are_proof(installation: Installation) -> None:
    """Entra sends invalid_grant for many temporary failures.

    One strike must not bother a user, but three in a row count.
    """
    installation.sign_in(ANN, due=True)

    states = [_refresh(installation, _UNPROVEN, after=after) for after in (0 * MINUTE, 5 * MINUTE, 5 * MINUTE)]

    assert states == [Status.ACTIVE, Status.ACTIVE, Status.REAUTH_REQUIRED]
    assert installation.requests == 3
    failure = installation.account().failure
    assert failure
    assert (failure.count, failure.since) == (3, installation.clock() - 10 * MINUTE)


def test_three_unproven_refusals_within_ten_minutes_are_none(installation: Installation) -> None:
    """Repeated refreshes by an operator or by readers must not end an account because of one bad minute at
    Microsoft."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(_UNPROVEN)

    for _ in range(5):
        with pytest.raises(AccountError):
            installation.services.on_demand.refresh_now(account_id(ANN))
        installation.clock.advance(minutes=1)

    assert installation.requests == 5
    assert installation.account().status is Status.ACTIVE


def test_a_success_in_between_clears_the_strikes(installation: Installation) -> None:
    """The grant was not dead then."""
    installation.sign_in(ANN, due=True)
    _refresh(installation, _UNPROVEN)
    _refresh(installation, _UNPROVEN, after=5 * MINUTE)
    _refresh(installation, after=5 * MINUTE)

    assert _refresh(installation, _UNPROVEN, after=2 * HOUR) is Status.ACTIVE
    failure = installation.account().failure
    assert failure
    assert failure.count == 1


def test_waits_double_up_to_a_quarter_of_an_hour(installation: Installation) -> None:
    """They start at Microsoft's five seconds. A spread of a half keeps failing accounts from retrying together."""
    installation.sign_in(ANN, due=True)
    waits = []
    for _ in range(12):
        _refresh(installation, _BUSY)
        due = installation.account().due_at
        assert due
        waits.append((due - installation.clock()).total_seconds())
        installation.clock.now = due

    for attempt, wait in enumerate(waits):
        base = min(5 * 2**attempt, 600)
        assert base <= wait <= 1.5 * base
    assert all(later > earlier for earlier, later in pairwise(waits[:7:2]))
    assert installation.requests == 12


def test_accounts_that_fail_together_are_not_retried_together(installation: Installation) -> None:
    """An outage makes the whole fleet due at one instant, and the retries must not repeat that."""
    emails = [f"user{number}@contoso.com" for number in range(20)]
    installation.sign_in(*emails, due=True)

    installation.emulator.add_fault(_PERSONAL)
    installation.refresh_due()

    assert len({account.due_at for account in installation.services.accounts.list()}) == 20


def test_retry_after_wins_over_the_back_off(installation: Installation) -> None:
    """Microsoft counts early requests and prolongs the throttling."""
    installation.sign_in(ANN, due=True)
    wait = timedelta(seconds=1234)
    _refresh(installation, oauth_error("AADSTS90055", retry_after=1234))

    _refresh(installation, after=wait - timedelta(seconds=1))
    assert installation.requests == 1
    assert _refresh(installation, after=timedelta(seconds=1) + wait / 10) is Status.ACTIVE
    assert installation.requests == 2


def test_a_wait_affects_only_its_account(installation: Installation) -> None:
    """The other accounts of the batch go on in time."""
    installation.sign_in(ANN, BOB, due=True)
    installation.emulator.add_fault(_BUSY, ANN)

    tally = installation.refresh_due()

    assert tally == {"leased": 2, "transient": 1, "refreshed": 1}
    assert installation.account(BOB).failure is None


def test_the_wait_grows_with_each_failure_of_any_process(installation: Installation) -> None:
    """A consumer's failed refresh counts like one of the schedule."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(_BUSY)
    with pytest.raises(AccountError):
        installation.services.tokens.get(ANN)
    installation.clock.advance(seconds=8)

    installation.refresh_due()

    failure = installation.account().failure
    assert failure
    assert (failure.kind, failure.count) == ("transient", 2)
    assert [line["trigger"] for line in installation.services.events.latest(account_id(ANN))] == [
        "schedule",
        "consumer",
    ]
