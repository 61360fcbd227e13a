"""Every status that an account can have: what leads to it, what does not, and how the account leaves it."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from tests.constants import ANN, BOB
from tests.factories import TurnedClock, emails
from tests.integration.installation import Installation
from tests.integration.side_effects import GrantWith, refusal_with
from worker.bootstrap import Services
from worker.devkit.emulator import oauth_error
from worker.domain.account import Status, account_id
from worker.domain.errors import AccountInactive, BlockedByAdmin, InvalidInput, NeedsUser
from worker.vault import Purpose

UNKNOWN = "12345"  # an invalid_grant with a code that is not listed
ENDED = {
    "50173": (Status.REAUTH_REQUIRED, NeedsUser),
    "53003": (Status.BLOCKED, BlockedByAdmin),
}


def state(installation: Installation, email: str = ANN) -> tuple[Status, int]:
    [(strikes,)] = installation.query(f"SELECT strikes FROM mail_credentials WHERE email = '{email}'")
    return installation.account(email).status, strikes


def assert_well(installation: Installation, email: str = ANN) -> None:
    """The account is active without a trace of failures, and has a live token."""
    account = installation.account(email)
    assert (account.failure, account.claims, account.lease_until) == (None, None, None)
    assert state(installation, email) == (Status.ACTIVE, 0)
    assert account.due_at is not None
    assert account.due_at > installation.clock.now
    assert installation.services.tokens.get(email).ttl(installation.clock.now) > timedelta(minutes=30)
    assert installation.stored_secret(Purpose.REFRESH_TOKEN, email) == installation.emulator.newest_refresh_token(email)


def test_strikes_are_counted_across_processes(installation: Installation) -> None:
    """Three strikes over ten minutes count as proof, even if different processes receive them and workers restart
    between them."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error(UNKNOWN), ANN)
    seen = []
    for _ in range(3):
        assert installation.another_process().refresher.refresh_due() == {"leased": 1, "reauth_required": 1}
        seen.append(state(installation))
        assert installation.another_process().refresher.refresh_due() == {"leased": 0}
        installation.clock.advance(minutes=5)

    assert seen == [(Status.ACTIVE, 1), (Status.ACTIVE, 2), (Status.REAUTH_REQUIRED, 3)]


def test_a_new_token_clears_strikes(installation: Installation, other_process: Services) -> None:
    """A new token has disproved the strikes, so the next strike is the first again."""
    installation.sign_in(ANN, due=True, lifetime=timedelta(hours=1))
    for expected in (1, 2, 0, 1, 2):
        installation.emulator.clear_faults()
        if expected:
            installation.emulator.add_fault(oauth_error(UNKNOWN), ANN)
        other_process.refresher.refresh_due()
        assert state(installation) == (Status.ACTIVE, expected)
        installation.clock.advance(minutes=5 if expected else 60)


def test_other_failures_neither_count_as_strikes_nor_clear_them(installation: Installation) -> None:
    """A 503 says nothing about the grant."""
    installation.sign_in(ANN, due=True)
    for code in (UNKNOWN, "90033", UNKNOWN, "50196", UNKNOWN):
        installation.emulator.add_fault(oauth_error(code), ANN, times=1)
        installation.refresh_due()
        installation.clock.advance(minutes=34)

    assert state(installation) == (Status.REAUTH_REQUIRED, 3)


def by_sign_in(installation: Installation) -> None:
    installation.sign_in(ANN, due=True)
    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}


def by_hand(installation: Installation) -> None:
    installation.services.on_demand.refresh_now(account_id(ANN))


def by_resuming(installation: Installation) -> None:
    installation.services.accounts.resume(ANN)
    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}


def by_the_daily_recheck(installation: Installation) -> None:
    installation.clock.advance(hours=23, minutes=59)
    assert installation.refresh_due() == {"leased": 0}
    installation.clock.advance(hours=2.5)
    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}


@pytest.mark.parametrize("code", ENDED)
@pytest.mark.parametrize("come_back", [by_sign_in, by_hand, by_resuming, by_the_daily_recheck])
def test_a_refused_account_becomes_active_again(
    installation: Installation, other_process: Services, code: str, come_back: Callable[[Installation], None]
) -> None:
    """Microsoft or an administrator may lift a refusal.

    Until then consumers get the error at once, without a request.
    """
    status, error = ENDED[code]
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error(code), ANN, times=1)
    installation.refresh_due()
    assert installation.account(ANN).status is status

    def read() -> None:
        with pytest.raises(error, match=f"AADSTS{code}"):
            other_process.tokens.get(ANN)

    assert installation.requests_during(read) == 0

    come_back(installation)

    assert_well(installation)


def test_a_dead_account_is_requested_once_a_day(installation: Installation) -> None:
    """One request a day is cheap enough to go on for weeks."""
    installation.sign_in(ANN, BOB, due=True)
    installation.emulator.add_fault(oauth_error("50173"), ANN)
    installation.emulator.add_fault(oauth_error("53003"), BOB)

    for _ in range(14 * 8):
        installation.refresh_due()
        installation.clock.advance(hours=3)

    statistics = installation.emulator.statistics().by_account
    assert 11 <= statistics[ANN].requests <= 14
    assert 11 <= statistics[BOB].requests <= 14
    assert installation.account(ANN).status is Status.REAUTH_REQUIRED
    assert installation.account(BOB).status is Status.BLOCKED


def test_an_unreadable_account_is_active_again_after_a_repair_and_a_resume(
    installation: Installation, clock: TurnedClock
) -> None:
    """The stored token is damaged. It is set aside and not overwritten, and an operator repairs and resumes it."""
    installation.sign_in(ANN, due=True)
    sealed = installation.account(ANN).refresh_token
    installation.query("UPDATE mail_credentials SET refresh_token = '\\x00'")

    assert installation.refresh_due() == {"leased": 1}

    account = installation.account(ANN)
    assert (account.status, account.due_at, account.refresh_token) == (Status.UNREADABLE, None, b"\x00")
    assert installation.requests == 0
    clock.advance(days=2)
    assert installation.refresh_due() == {"leased": 0}
    with pytest.raises(AccountInactive):
        installation.services.tokens.get(ANN)

    installation.query("UPDATE mail_credentials SET refresh_token = :sealed", sealed=sealed)
    by_resuming(installation)
    assert_well(installation)


def test_an_unreadable_account_is_active_again_after_a_sign_in(installation: Installation) -> None:
    """The key is lost for good. The user signs in again, and the new grant is sealed under the current key."""
    installation.sign_in(ANN, due=True)
    installation.query("UPDATE mail_credentials SET refresh_token = '\\x00'")
    installation.refresh_due()
    assert installation.account(ANN).status is Status.UNREADABLE

    by_sign_in(installation)

    assert_well(installation)


def test_a_paused_account_is_refreshed_again_once_resumed(installation: Installation, other_process: Services) -> None:
    """Its token is served while it lives, and no request is sent, however overdue the account is."""
    installation.sign_in(ANN, due=True, lifetime=timedelta(hours=1))
    installation.refresh_due()
    token = installation.services.tokens.get(ANN)
    installation.services.accounts.pause(ANN)

    def an_hour() -> None:
        installation.clock.advance(minutes=58)
        other_process.refresher.refresh_due()
        assert other_process.tokens.get(ANN).value == token.value
        installation.clock.advance(minutes=2)
        with pytest.raises(AccountInactive, match="paused"):
            other_process.tokens.get(ANN)
        with pytest.raises(AccountInactive, match="paused"):
            other_process.on_demand.refresh_now(account_id(ANN))

    assert installation.requests_during(an_hour) == 0

    by_resuming(installation)
    assert_well(installation)


def test_only_a_sign_in_reactivates_a_disconnected_account(installation: Installation) -> None:
    """A resume is not enough, because the tokens were erased."""
    installation.sign_in(ANN, due=True)
    installation.refresh_due()
    installation.services.accounts.disconnect(ANN)
    with pytest.raises(InvalidInput):
        installation.services.accounts.resume(ANN)
    with pytest.raises(AccountInactive, match="disconnected"):
        installation.services.tokens.get(ANN)

    by_sign_in(installation)

    assert_well(installation)


def test_a_refusal_of_the_old_grant_does_not_affect_the_new_one(installation: Installation) -> None:
    """The users sign in while Microsoft refuses their old grants, so the rows change between lease and response."""
    codes = ["50173", "53003", UNKNOWN, "70043", "90033", "50196"]
    users = emails(len(codes))
    installation.sign_in(*users, due=True)
    for email, code in zip(users, codes, strict=True):
        installation.emulator.add_fault(
            refusal_with(code, partial(installation.sign_in, email, due=True)), email, times=1
        )

    installation.refresh_due()

    for email in users:
        account = installation.account(email)
        assert (account.version, account.failure, account.grant_lifetime) == (2, None, None)
        assert state(installation, email) == (Status.ACTIVE, 0)
    assert installation.refresh_due() == {"leased": len(codes), "refreshed": len(codes)}
    for email in users:
        assert_well(installation, email)


def test_a_consumer_whose_old_grant_is_refused_gets_the_new_grants_token(installation: Installation) -> None:
    """The consumer sent the old grant, but a new one is stored by now, so it gets the new token and no error."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(refusal_with("50173", lambda: installation.sign_in(ANN, due=True)), ANN, times=1)

    assert installation.services.tokens.get(ANN).version == 3


@pytest.mark.parametrize("granted", [False, True])
@pytest.mark.parametrize(("act", "status"), [("pause", Status.PAUSED), ("disconnect", Status.DISCONNECTED)])
def test_an_operators_decision_during_a_refresh_stands(
    installation: Installation, act: str, status: Status, granted: bool
) -> None:
    """Neither a refusal nor a new token changes a decision that was made while the request was in flight."""
    installation.sign_in(ANN, due=True)

    def operate() -> None:
        getattr(installation.services.accounts, act)(ANN)

    installation.emulator.add_fault(
        GrantWith(meanwhile=operate) if granted else refusal_with("50173", operate), ANN, times=1
    )

    installation.refresh_due()

    account = installation.account(ANN)
    assert (account.status, account.due_at, account.failure) == (status, None, None)


def test_one_dead_account_does_not_affect_the_others(installation: Installation) -> None:
    """The other accounts of the batch and of the tenant are refreshed."""
    installation.sign_in(ANN, BOB, due=True)
    installation.emulator.revoke(ANN)

    assert installation.refresh_due() == {"leased": 2, "refreshed": 1, "reauth_required": 1}

    assert_well(installation, BOB)
    with pytest.raises(NeedsUser):
        installation.services.tokens.get(ANN)
