"""The errors of mail logins, for users, operators and programs."""

from datetime import timedelta

import pytest

from worker.domain.errors import TokenRefused, Unavailable
from worker.mail import LoginRejected, MailboxNotConnected, MailboxRefused, MailUnavailable


@pytest.mark.parametrize("kind", [MailboxRefused, LoginRejected])
@pytest.mark.parametrize("email", ["ann@outlook.com", "ann@HOTMAIL.co.uk", "ann@live.nl", "ann@msn.com"])
def test_the_user_of_a_personal_mailbox_is_not_referred_to_an_administrator(
    kind: type[MailboxRefused | LoginRejected], email: str
) -> None:
    advice = kind(email, "AUTHENTICATE failed.").advice
    assert "settings of Outlook.com" in advice
    assert "administrator" not in advice


@pytest.mark.parametrize("kind", [MailboxRefused, LoginRejected])
@pytest.mark.parametrize("email", ["ann@contoso.com", "ann@outlook.contoso.com", "ann@live.contoso.com"])
def test_everyone_else_is_offered_both(kind: type[MailboxRefused | LoginRejected], email: str) -> None:
    """A personal account may have an address of any domain."""
    advice = kind(email, "AUTHENTICATE failed.").advice
    assert "administrator" in advice
    assert "Outlook.com" in advice


def test_codes_stay() -> None:
    rejected = LoginRejected("ann@contoso.com", "AUTHENTICATE failed.", timedelta(minutes=9))
    assert (rejected.code, rejected.said, rejected.retry_after) == (
        "token_refused",
        "AUTHENTICATE failed.",
        timedelta(minutes=9),
    )
    assert isinstance(rejected, TokenRefused)
    assert str(rejected).endswith("the mail server said: AUTHENTICATE failed.")
    assert MailboxRefused("ann@contoso.com", "no").code == "mailbox_refused"


def test_a_mailbox_that_is_not_connected_may_be_tomorrow() -> None:
    error = MailboxNotConnected("outlook.office365.com", "User is authenticated but not connected.")
    assert isinstance(error, MailUnavailable)
    assert isinstance(error, Unavailable)
    assert error.code == "mail_unavailable"
    assert "this may pass" in str(error)
