"""Failures of accounts do not open the breaker of their app registration, even if Microsoft's error suggests it."""

from collections.abc import Sequence

import pytest

from tests.factories import emails
from tests.integration.installation import Installation
from worker.devkit.emulator import Fault, RawAnswer, oauth_error
from worker.domain.account import Grant, Status
from worker.domain.token import Secret
from worker.settings.clients import MAIL_SCOPES

DAMAGED = emails(40, "damaged.example")


def test_damaged_refresh_tokens_do_not_stop_other_accounts(installation: Installation) -> None:
    """An import has cut the tokens short.

    They are the longest overdue, but only their users can help, by signing in again.
    """
    store(installation, DAMAGED, length=512)
    installation.clock.advance(seconds=1)
    installation.sign_in(*emails(10), due=True)

    assert installation.refresh_due() == {"leased": 50, "reauth_required": 40, "refreshed": 10}
    assert installation.breaker_rows() == []
    assert installation.account(DAMAGED[0]).status is Status.ACTIVE

    for _ in range(2):
        installation.clock.advance(minutes=5)
        assert installation.refresh_due() == {"leased": 40, "reauth_required": 40}
    assert {installation.account(email).status for email in DAMAGED} == {Status.REAUTH_REQUIRED}


def test_accounts_with_wrong_scopes_do_not_stop_other_accounts(installation: Installation) -> None:
    """Some accounts are stored with scopes that Microsoft does not know."""
    store(installation, DAMAGED, scopes=("https://outlook.office.com/IMAP.Typo",))
    refuse(installation, DAMAGED, "70011")
    installation.clock.advance(seconds=1)
    installation.sign_in(*emails(10), due=True)

    assert installation.refresh_due() == {"leased": 50, "misconfigured": 40, "refreshed": 10}
    assert installation.breaker_rows() == []


@pytest.mark.parametrize("scopes", [(), tuple(MAIL_SCOPES.split())], ids=["by default", "spelled out"])
def test_wrong_scopes_of_the_registration_open_its_breaker(installation: Installation, scopes: tuple[str, ...]) -> None:
    """If Microsoft refuses these, requests for the other accounts are pointless."""
    store(installation, DAMAGED, scopes=scopes)
    refuse(installation, DAMAGED, "700022")

    assert installation.refresh_due()["misconfigured"] <= installation.requests_until_open
    assert len(installation.breaker_rows()) == 1


@pytest.mark.parametrize(
    "fault",
    [
        oauth_error("90023"),
        oauth_error("9002327"),
        oauth_error("70011"),
        oauth_error("9002332"),
        oauth_error("5099990", error="invalid_client", status=401),
        oauth_error("5099990", error="unauthorized_client"),
        RawAnswer(b'{"error": "access_denied"}', 400),
        RawAnswer(b'{"error": "brand_new_error"}', 400),
        RawAnswer(b"<html>Request header too large</html>", 400, "text/html"),
    ],
    ids=["90023", "9002327", "70011", "9002332", "client", "unauthorized", "denied", "new", "HTML"],
)
def test_refusals_of_a_few_accounts_do_not_stop_other_accounts(installation: Installation, fault: Fault) -> None:
    """The same holds for codes that are not listed, with any error name."""
    store(installation, DAMAGED)
    for email in DAMAGED:
        installation.emulator.add_fault(fault, email)
    installation.clock.advance(seconds=1)
    installation.sign_in(*emails(10), due=True)

    counts = installation.refresh_due()

    assert (counts["leased"], counts["refreshed"]) == (50, 10)
    assert installation.breaker_rows() == []


def test_accounts_with_a_wrong_authority_do_not_stop_other_accounts(installation: Installation) -> None:
    """A customer's accounts were stored with an authority that does not serve the app."""
    authority = installation.settings.authority.replace("/common", "/consumers")
    store(installation, DAMAGED, authority=authority)
    refuse(installation, DAMAGED, "9002331")
    installation.clock.advance(seconds=1)
    installation.sign_in(*emails(10), due=True)

    assert installation.refresh_due() == {"leased": 50, "misconfigured": 40, "refreshed": 10}
    assert installation.breaker_rows() == []


@pytest.mark.parametrize("is_spelled_out", [False, True], ids=["by default", "spelled out"])
def test_a_wrong_authority_of_the_registration_opens_its_breaker(
    installation: Installation, *, is_spelled_out: bool
) -> None:
    """A single-tenant app sends requests to /common. Every other account would be refused as well."""
    store(installation, DAMAGED, authority=installation.settings.authority if is_spelled_out else None)
    refuse(installation, DAMAGED, "50194")

    assert installation.refresh_due()["misconfigured"] <= installation.requests_until_open
    assert len(installation.breaker_rows()) == 1


def store(
    installation: Installation,
    accounts: Sequence[str],
    *,
    length: int | None = None,
    scopes: tuple[str, ...] = (),
    authority: str | None = None,
) -> None:
    """Sign the users in and store the first ``length`` characters of each refresh token, or all."""
    tokens = {email: installation.emulator.enrol(email).refresh_token[:length] for email in accounts}
    installation.services.accounts.save(
        [
            Grant(email=email, refresh_token=Secret(token), scopes=scopes, authority=authority)
            for email, token in tokens.items()
        ]
    )


def refuse(installation: Installation, accounts: Sequence[str], code: str) -> None:
    for email in accounts:
        installation.emulator.add_fault(oauth_error(code), email)
