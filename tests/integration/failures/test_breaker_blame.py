"""What is wrong with accounts is not held against their app registration, though Microsoft's words might say so."""

from collections.abc import Sequence

import pytest

from tests.integration.failures.mailboxes import Mailboxes, emails
from worker.devkit.emulator import oauth_error
from worker.domain.account import Grant, Status
from worker.domain.secret import Secret
from worker.settings.clients import MAIL_SCOPES

DAMAGED = emails(40, "damaged.example")


def test_damaged_refresh_tokens_do_not_stop_the_others(mailboxes: Mailboxes) -> None:
    """An import has cut them short: the longest overdue of all, but it is their users who must sign in again."""
    store(mailboxes, DAMAGED, length=512)
    mailboxes.clock.advance(seconds=1)
    mailboxes.sign_in(*emails(10))

    assert mailboxes.refresh_due() == {"claimed": 50, "reauth_required": 40, "refreshed": 10}
    assert mailboxes.breakers() == []
    assert mailboxes.account(DAMAGED[0]).status is Status.ACTIVE

    for _ in range(2):
        mailboxes.clock.advance(minutes=5)
        assert mailboxes.refresh_due() == {"claimed": 40, "reauth_required": 40}
    assert {mailboxes.account(email).status for email in DAMAGED} == {Status.REAUTH_REQUIRED}


def test_scopes_of_their_own_do_not_stop_the_others(mailboxes: Mailboxes) -> None:
    """Somebody has stored scopes for a few that Microsoft does not know."""
    store(mailboxes, DAMAGED, scopes=("https://outlook.office.com/IMAP.Typo",))
    refuse(mailboxes, DAMAGED, "70011")
    mailboxes.clock.advance(seconds=1)
    mailboxes.sign_in(*emails(10))

    assert mailboxes.refresh_due() == {"claimed": 50, "misconfigured": 40, "refreshed": 10}
    assert mailboxes.breakers() == []


@pytest.mark.parametrize("scopes", [(), tuple(MAIL_SCOPES.split())], ids=["by default", "spelled out"])
def test_the_registration_s_own_scopes_are_its_own_affair(mailboxes: Mailboxes, scopes: tuple[str, ...]) -> None:
    """If Microsoft refuses those, asking for the others is pointless."""
    store(mailboxes, DAMAGED, scopes=scopes)
    refuse(mailboxes, DAMAGED, "70011")

    assert mailboxes.refresh_due()["misconfigured"] <= mailboxes.handful
    assert len(mailboxes.breakers()) == 1


def test_authorities_of_their_own_do_not_stop_the_others(mailboxes: Mailboxes) -> None:
    """A customer's accounts came with the wrong one: the app is not for it."""
    authority = mailboxes.settings.authority.replace("/common", "/consumers")
    store(mailboxes, DAMAGED, authority=authority)
    refuse(mailboxes, DAMAGED, "9002331")
    mailboxes.clock.advance(seconds=1)
    mailboxes.sign_in(*emails(10))

    assert mailboxes.refresh_due() == {"claimed": 50, "misconfigured": 40, "refreshed": 10}
    assert mailboxes.breakers() == []


@pytest.mark.parametrize("is_spelled_out", [False, True], ids=["by default", "spelled out"])
def test_the_registration_s_own_authority_is_its_own_affair(mailboxes: Mailboxes, *, is_spelled_out: bool) -> None:
    """A single-tenant app asked at /common: no other account would fare better."""
    store(mailboxes, DAMAGED, authority=mailboxes.settings.authority if is_spelled_out else None)
    refuse(mailboxes, DAMAGED, "50194")

    assert mailboxes.refresh_due()["misconfigured"] <= mailboxes.handful
    assert len(mailboxes.breakers()) == 1


def store(
    mailboxes: Mailboxes,
    everybody: Sequence[str],
    *,
    length: int | None = None,
    scopes: tuple[str, ...] = (),
    authority: str | None = None,
) -> None:
    """Their users sign in, and of each refresh token so much is stored."""
    tokens = {email: mailboxes.emulator.enrol(email).refresh_token[:length] for email in everybody}
    mailboxes.services.accounts.save(
        [
            Grant(email=email, refresh_token=Secret(token), scopes=scopes, authority=authority)
            for email, token in tokens.items()
        ]
    )


def refuse(mailboxes: Mailboxes, everybody: Sequence[str], code: str) -> None:
    for email in everybody:
        mailboxes.emulator.add_fault(oauth_error(code), email)
