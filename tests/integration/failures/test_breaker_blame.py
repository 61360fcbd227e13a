"""What is wrong with accounts is not held against their app registration, though Microsoft's words might say so."""

from collections.abc import Sequence

import pytest

from tests.factories import emails
from tests.integration.installation import Installation
from worker.devkit.emulator import Fault, RawAnswer, oauth_error
from worker.domain.account import Grant, Status
from worker.domain.token import Secret
from worker.settings.clients import MAIL_SCOPES

DAMAGED = emails(40, "damaged.example")


def test_damaged_refresh_tokens_do_not_stop_the_others(installation: Installation) -> None:
    """An import has cut them short: the longest overdue of all, but it is their users who must sign in again."""
    store(installation, DAMAGED, length=512)
    installation.clock.advance(seconds=1)
    installation.sign_in(*emails(10), due=True)

    assert installation.refresh_due() == {"claimed": 50, "reauth_required": 40, "refreshed": 10}
    assert installation.breaker_rows() == []
    assert installation.account(DAMAGED[0]).status is Status.ACTIVE

    for _ in range(2):
        installation.clock.advance(minutes=5)
        assert installation.refresh_due() == {"claimed": 40, "reauth_required": 40}
    assert {installation.account(email).status for email in DAMAGED} == {Status.REAUTH_REQUIRED}


def test_scopes_of_their_own_do_not_stop_the_others(installation: Installation) -> None:
    """Somebody has stored scopes for a few that Microsoft does not know."""
    store(installation, DAMAGED, scopes=("https://outlook.office.com/IMAP.Typo",))
    refuse(installation, DAMAGED, "70011")
    installation.clock.advance(seconds=1)
    installation.sign_in(*emails(10), due=True)

    assert installation.refresh_due() == {"claimed": 50, "misconfigured": 40, "refreshed": 10}
    assert installation.breaker_rows() == []


@pytest.mark.parametrize("scopes", [(), tuple(MAIL_SCOPES.split())], ids=["by default", "spelled out"])
def test_the_registration_s_own_scopes_are_its_own_affair(installation: Installation, scopes: tuple[str, ...]) -> None:
    """If Microsoft refuses those, asking for the others is pointless."""
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
def test_answers_that_a_few_accounts_get_do_not_stop_the_others(installation: Installation, fault: Fault) -> None:
    """The same holds for codes that are not listed, with any error name."""
    store(installation, DAMAGED)
    for email in DAMAGED:
        installation.emulator.add_fault(fault, email)
    installation.clock.advance(seconds=1)
    installation.sign_in(*emails(10), due=True)

    counts = installation.refresh_due()

    assert (counts["claimed"], counts["refreshed"]) == (50, 10)
    assert installation.breaker_rows() == []


def test_authorities_of_their_own_do_not_stop_the_others(installation: Installation) -> None:
    """A customer's accounts came with the wrong one: the app is not for it."""
    authority = installation.settings.authority.replace("/common", "/consumers")
    store(installation, DAMAGED, authority=authority)
    refuse(installation, DAMAGED, "9002331")
    installation.clock.advance(seconds=1)
    installation.sign_in(*emails(10), due=True)

    assert installation.refresh_due() == {"claimed": 50, "misconfigured": 40, "refreshed": 10}
    assert installation.breaker_rows() == []


@pytest.mark.parametrize("is_spelled_out", [False, True], ids=["by default", "spelled out"])
def test_the_registration_s_own_authority_is_its_own_affair(
    installation: Installation, *, is_spelled_out: bool
) -> None:
    """A single-tenant app asked at /common: no other account would fare better."""
    store(installation, DAMAGED, authority=installation.settings.authority if is_spelled_out else None)
    refuse(installation, DAMAGED, "50194")

    assert installation.refresh_due()["misconfigured"] <= installation.requests_until_open
    assert len(installation.breaker_rows()) == 1


def store(
    installation: Installation,
    everybody: Sequence[str],
    *,
    length: int | None = None,
    scopes: tuple[str, ...] = (),
    authority: str | None = None,
) -> None:
    """Their users sign in, and of each refresh token so much is stored."""
    tokens = {email: installation.emulator.enrol(email).refresh_token[:length] for email in everybody}
    installation.services.accounts.save(
        [
            Grant(email=email, refresh_token=Secret(token), scopes=scopes, authority=authority)
            for email, token in tokens.items()
        ]
    )


def refuse(installation: Installation, everybody: Sequence[str], code: str) -> None:
    for email in everybody:
        installation.emulator.add_fault(oauth_error(code), email)
