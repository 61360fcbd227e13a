"""Which grants will expire soon: expired grants show the limits, and the query agrees with `grant_expires_at`."""

import json
from collections.abc import Callable
from datetime import timedelta
from itertools import product

import pytest

from tests.constants import ANN, BOB, DAY, HOUR
from tests.factories import NOW, emails
from tests.integration.installation import Installation
from worker.clock import utcnow
from worker.devkit.emulator import oauth_error
from worker.domain.account import Grant, Status, grant_expires_at
from worker.domain.selection import Selection
from worker.domain.token import Secret


def expiring(installation: Installation, days: float) -> set[str]:
    found = installation.services.accounts.list(Selection(expiring_before=installation.clock() + timedelta(days=days)))
    return {account.email for account in found}


def live(installation: Installation, days: int, code: str) -> None:
    """Refresh the account for so many days, then let Microsoft end its grant with this code."""
    for _ in range(days * 2):
        installation.clock.advance(hours=12)
        assert installation.refresh_due() == {"leased": 1, "refreshed": 1}
    installation.clock.advance(hours=2)
    installation.emulator.add_fault(oauth_error(code), ANN, times=1)
    assert installation.refresh_due() == {"leased": 1, "reauth_required": 1}


@pytest.mark.parametrize(("days", "code"), [(7, "70043"), (1, "700084")])
def test_a_grant_is_expected_to_end_at_the_age_of_the_previous_one(
    installation: Installation, days: int, code: str
) -> None:
    """Sign-in frequency is the tenant's policy, and 24 hours are the platform's for a single-page app.

    Microsoft announces neither of them, and both apply again to the next grant.
    """
    installation.sign_in(ANN, due=True)
    assert grant_expires_at(installation.account(ANN)) == NOW + 90 * DAY
    live(installation, days, code)

    installation.sign_in(ANN, due=True)
    installation.refresh_due()

    age = days * DAY + 2 * HOUR
    account = installation.account(ANN)
    assert (account.status, account.grant_lifetime) == (Status.ACTIVE, age)
    assert grant_expires_at(account) == installation.clock.now + age
    assert expiring(installation, days) == set()
    assert expiring(installation, days + 0.1) == {ANN}


def test_the_newest_age_counts(installation: Installation) -> None:
    """The administrator has changed the policy from two days to five."""
    installation.sign_in(ANN, due=True)
    live(installation, 2, "70043")
    installation.sign_in(ANN, due=True)
    live(installation, 5, "70043")

    assert installation.account(ANN).grant_lifetime == 5 * DAY + 2 * HOUR


def test_other_reasons_say_nothing_about_the_age(installation: Installation) -> None:
    """A changed password, a revocation or a risk could end a grant on any day."""
    codes = ["50173", "700082", "50076", "53003", "12345", "90033"]
    users = emails(len(codes))
    installation.sign_in(*users, due=True)
    for email, code in zip(users, codes, strict=True):
        installation.emulator.add_fault(oauth_error(code), email)
    installation.clock.advance(days=3)

    installation.refresh_due()

    assert all(account.failure for account in installation.accounts())
    assert {account.grant_lifetime for account in installation.accounts()} == {None}


def test_the_daily_recheck_of_a_dead_grant_does_not_raise_its_age(installation: Installation) -> None:
    """The grant ended when it was first refused. Each later refusal is the same one."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("70043"))
    installation.clock.advance(days=3)
    for _ in range(5):
        installation.refresh_due()
        installation.clock.advance(days=1.5)

    assert installation.account(ANN).failure is not None
    assert installation.account(ANN).grant_lifetime == 3 * DAY


def test_a_grant_lives_while_it_is_used_and_ends_without_use(installation: Installation) -> None:
    """A grant ends after 90 days without a refresh. A paused account is not refreshed, so it needs attention."""
    installation.sign_in(ANN, BOB, due=True)
    installation.refresh_due()
    installation.services.accounts.pause(ANN)
    installation.clock.advance(days=85)
    installation.refresh_due()

    assert expiring(installation, 5) == set()
    assert expiring(installation, 5.1) == {ANN}
    assert expiring(installation, 90.1) == {ANN, BOB}


@pytest.fixture(name="all_sorts")
def _all_sorts(installation: Installation) -> Installation:
    """A hundred rows with every combination of times of sign-in, last use and expiry by age, in every status."""
    signed_in = [None, 0, -1, -30, -89, -200]
    used = [None, -0.5, -60, -95]
    lifetimes = [None, 1, 30, 91.5]
    rows = list(product(signed_in, used, lifetimes))
    names = emails(len(rows))
    installation.services.accounts.save([Grant(email=email, refresh_token=Secret("a-token")) for email in names])
    for number, (email, row) in enumerate(zip(names, rows, strict=True)):
        signed_in_at, used_at, lifetime = row
        status = list(Status)[number % len(Status)]
        installation.query(
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
    return installation


def test_the_query_agrees_with_the_domain_rule(all_sorts: Installation) -> None:
    """SQL and Python express one rule. Accounts that must sign in already need no warning."""
    at_risk = [account for account in all_sorts.accounts() if account.status is not Status.REAUTH_REQUIRED]
    sizes = set()
    for days in (0, 0.5, 1, 1.5, 7, 29.9, 30, 30.1, 60, 89.5, 90, 90.1, 365):
        before = NOW + days * DAY

        expected = {account.email for account in at_risk if (dies := grant_expires_at(account)) and dies < before}

        assert expiring(all_sorts, days) == expected
        sizes.add(len(expected))
    assert len(sizes) > 6


def test_the_list_pages_through_all_expiring_grants(installation: Installation) -> None:
    """There is more than one page. Each account appears once and in order."""
    names = sorted(emails(1005))
    installation.services.accounts.save([Grant(email=email, refresh_token=Secret("a-token")) for email in names])

    found = installation.services.accounts.list(Selection(expiring_before=installation.clock() + 91 * DAY))

    assert [account.email for account in found] == names


def test_the_command_lists_the_expiring_grants(installation: Installation, command: Callable[..., str]) -> None:
    """`token-worker list --expiring 7` prints when each grant will end."""
    installation.clock.now = utcnow()
    installation.sign_in(ANN, BOB, due=True)
    installation.query(f"UPDATE mail_credentials SET grant_lifetime = interval '3 days' WHERE email = '{BOB}'")

    [listed] = map(json.loads, command("list", "--expiring", "7", "--json").splitlines())
    assert listed["email"] == BOB
    assert listed["grant_dies_at"] == (installation.clock.now + 3 * DAY).isoformat()
    assert listed["grant_expires_at"] == listed["grant_dies_at"]
    assert command("list", "--dying", "7", "--json") == command("list", "--expiring", "7", "--json")
