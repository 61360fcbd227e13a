"""Which grants will soon be dead: what a death has taught, and a query that agrees with domain/forecast.py."""

import json
from collections.abc import Callable
from datetime import timedelta
from itertools import product

import pytest

from tests.factories import NOW
from tests.integration.failures.mailboxes import ANN, BOB, Mailboxes, emails
from worker.clock import utcnow
from worker.devkit.emulator import oauth_error
from worker.domain.account import Grant, Status, grant_expires_at
from worker.domain.secret import Secret

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def dying(mailboxes: Mailboxes, days: float) -> set[str]:
    found = mailboxes.services.accounts.list(expiring_within=timedelta(days=days))
    return {account.email for account in found}


def live(mailboxes: Mailboxes, days: int, code: str) -> None:
    """The account is refreshed for so many days; then Microsoft ends its grant."""
    for _ in range(days * 2):
        mailboxes.clock.advance(hours=12)
        assert mailboxes.refresh_due() == {"claimed": 1, "refreshed": 1}
    mailboxes.clock.advance(hours=2)
    mailboxes.emulator.add_fault(oauth_error(code), ANN, times=1)
    assert mailboxes.refresh_due() == {"claimed": 1, "reauth_required": 1}


@pytest.mark.parametrize(("days", "code"), [(7, "70043"), (1, "700084")])
def test_an_age_that_has_ended_a_grant_is_expected_to_end_the_next(mailboxes: Mailboxes, days: int, code: str) -> None:
    """Sign-in frequency is the tenant's policy, 24 hours the platform's for a single page app: neither is told in
    advance, both strike again."""
    mailboxes.sign_in(ANN)
    assert grant_expires_at(mailboxes.account(ANN)) == NOW + 90 * DAY
    live(mailboxes, days, code)

    mailboxes.sign_in(ANN)
    mailboxes.refresh_due()

    age = days * DAY + 2 * HOUR
    account = mailboxes.account(ANN)
    assert (account.status, account.grant_lifetime) == (Status.ACTIVE, age)
    assert grant_expires_at(account) == mailboxes.clock.now + age
    assert dying(mailboxes, days) == set()
    assert dying(mailboxes, days + 0.1) == {ANN}


def test_the_newest_lesson_counts(mailboxes: Mailboxes) -> None:
    """The administrator has changed the policy from two days to five."""
    mailboxes.sign_in(ANN)
    live(mailboxes, 2, "70043")
    mailboxes.sign_in(ANN)
    live(mailboxes, 5, "70043")

    assert mailboxes.account(ANN).grant_lifetime == 5 * DAY + 2 * HOUR


def test_other_ends_teach_nothing_about_age(mailboxes: Mailboxes) -> None:
    """A changed password, a revocation, a risk: it could have been any day."""
    codes = ["50173", "700082", "50076", "53003", "12345", "90033"]
    users = emails(len(codes))
    mailboxes.sign_in(*users)
    for email, code in zip(users, codes, strict=True):
        mailboxes.emulator.add_fault(oauth_error(code), email)
    mailboxes.clock.advance(days=3)

    mailboxes.refresh_due()

    assert all(account.failure for account in mailboxes.accounts())
    assert {account.grant_lifetime for account in mailboxes.accounts()} == {None}


def test_the_daily_look_at_a_dead_grant_does_not_make_it_older(mailboxes: Mailboxes) -> None:
    """It died when it was first refused; each further day says the same again."""
    mailboxes.sign_in(ANN)
    mailboxes.emulator.add_fault(oauth_error("70043"))
    mailboxes.clock.advance(days=3)
    for _ in range(5):
        mailboxes.refresh_due()
        mailboxes.clock.advance(days=1.5)

    assert mailboxes.account(ANN).failure is not None
    assert mailboxes.account(ANN).grant_lifetime == 3 * DAY


def test_use_keeps_a_grant_alive_and_silence_kills_it(mailboxes: Mailboxes) -> None:
    """90 days without a refresh; for a paused account nobody refreshes, so it is the one to look after."""
    mailboxes.sign_in(ANN, BOB)
    mailboxes.refresh_due()
    mailboxes.services.accounts.pause(ANN)
    mailboxes.clock.advance(days=85)
    mailboxes.refresh_due()

    assert dying(mailboxes, 5) == set()
    assert dying(mailboxes, 5.1) == {ANN}
    assert dying(mailboxes, 90.1) == {ANN, BOB}


@pytest.fixture(name="all_sorts")
def _all_sorts(mailboxes: Mailboxes) -> Mailboxes:
    """A hundred rows: signed in, last used and aged out in every combination, and in every state."""
    signed_in = [None, 0, -1, -30, -89, -200]
    used = [None, -0.5, -60, -95]
    lifetimes = [None, 1, 30, 91.5]
    rows = list(product(signed_in, used, lifetimes))
    names = emails(len(rows))
    mailboxes.services.accounts.save([Grant(email=email, refresh_token=Secret("a-token")) for email in names])
    for number, (email, row) in enumerate(zip(names, rows, strict=True)):
        signed_in_at, used_at, lifetime = row
        status = list(Status)[number % len(Status)]
        mailboxes.query(
            """
            UPDATE mail_credentials
            SET signed_in_at = :signed_in_at, last_refreshed_at = :used_at, grant_lifetime = :lifetime,
                status = :status, refresh_due_at = NULL,
                refresh_token = CASE WHEN :status <> 'disconnected' THEN refresh_token END
            WHERE email = :email
            """,
            signed_in_at=None if signed_in_at is None else NOW + signed_in_at * DAY,
            used_at=None if used_at is None else NOW + used_at * DAY,
            lifetime=None if lifetime is None else lifetime * DAY,
            status=status.value,
            email=email,
        )
    return mailboxes


def test_the_query_agrees_with_the_forecast(all_sorts: Mailboxes) -> None:
    """Two spellings of one rule, in SQL and in Python. Those who must sign in already need no warning."""
    at_risk = [account for account in all_sorts.accounts() if account.status is not Status.REAUTH_REQUIRED]
    sizes = set()
    for days in (0, 0.5, 1, 1.5, 7, 29.9, 30, 30.1, 60, 89.5, 90, 90.1, 365):
        before = NOW + days * DAY

        expected = {account.email for account in at_risk if (dies := grant_expires_at(account)) and dies < before}

        assert dying(all_sorts, days) == expected
        sizes.add(len(expected))
    assert len(sizes) > 6


def test_the_list_pages_through_all_that_are_dying(mailboxes: Mailboxes) -> None:
    """More than one page of them, each once and in order."""
    names = sorted(emails(1005))
    mailboxes.services.accounts.save([Grant(email=email, refresh_token=Secret("a-token")) for email in names])

    found = mailboxes.services.accounts.list(expiring_within=91 * DAY)

    assert [account.email for account in found] == names


def test_the_command_lists_exactly_those(mailboxes: Mailboxes, command: Callable[..., str]) -> None:
    """`token-worker list --dying 7`, and it says when."""
    mailboxes.clock.now = utcnow()
    mailboxes.sign_in(ANN, BOB)
    mailboxes.query(f"UPDATE mail_credentials SET grant_lifetime = interval '3 days' WHERE email = '{BOB}'")

    [listed] = map(json.loads, command("list", "--dying", "7", "--json").splitlines())
    assert listed["email"] == BOB
    assert listed["grant_dies_at"] == (mailboxes.clock.now + 3 * DAY).isoformat()
