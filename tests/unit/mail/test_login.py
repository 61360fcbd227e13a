"""The steps of a login without a server, and the length of a session."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.factories import NOW
from worker.domain.account import MailServers
from worker.domain.cache_entry import MailAccount
from worker.domain.errors import AccountInactive, BackingOff, TokenRefused
from worker.domain.mail_hosts import MICROSOFT_MAIL_HOSTS
from worker.domain.token import AccessToken, Secret
from worker.mail import LoginOptions, LoginRejected, MailboxNotConnected, MailHostNotAllowed, MailUnavailable
from worker.mail.answers import MailProtocol
from worker.mail.login import Login, Means, TokenRejected, log_in

ANN = "ann@contoso.com"
TOKEN = AccessToken(email=ANN, secret=Secret("token"), obtained_at=NOW, expires_at=NOW + timedelta(hours=1), version=7)
NEWER = replace(TOKEN, version=8)
ACCOUNT = MailAccount(email=ANN, servers=MailServers(), use_oauth=True, token=TOKEN)
NOT_CONNECTED = MailboxNotConnected("outlook.office365.com", "User is authenticated but not connected.")


class Source:
    mail_hosts = MICROSOFT_MAIL_HOSTS

    def load(self, email: str, *, min_ttl: float | None = None) -> MailAccount: ...  # type: ignore[empty-body]

    def report_rejected(self, email: str, version: int) -> AccessToken: ...  # type: ignore[empty-body]


def attempt(login: Login) -> None: ...


def pause(seconds: float) -> None: ...


def procedure(options: LoginOptions | None = None) -> Any:
    return log_in(Source(), ANN, options or {}, Means(MailProtocol.IMAP, attempt, pause))


def first_login(account: MailAccount, options: LoginOptions | None = None) -> Login:
    steps = procedure(options)
    next(steps)
    login = steps.send(account).args[0]
    assert isinstance(login, Login)
    return login


def test_the_order_of_the_steps() -> None:
    """They are: load, log in, report the rejected version, log in with the newer token, give up."""
    steps = procedure({"min_ttl": 900})
    assert next(steps).keywords == {"min_ttl": 900}
    assert steps.send(ACCOUNT).args[0].token == TOKEN
    assert steps.throw(TokenRejected("no")).args == (ANN, 7)
    assert steps.send(NEWER).args[0].token == NEWER
    with pytest.raises(LoginRejected, match="still no") as caught:
        steps.throw(TokenRejected("still no"))
    assert caught.value.said == "still no"


def test_a_session_ends_the_procedure() -> None:
    steps = procedure()
    next(steps)
    steps.send(ACCOUNT)
    with pytest.raises(StopIteration) as done:
        steps.send("session")
    assert done.value.value == "session"


def test_the_servers_words_stay_when_there_is_no_newer_token() -> None:
    """Another process may have reported the same token minutes ago."""
    steps = procedure()
    next(steps)
    steps.send(ACCOUNT)
    steps.throw(TokenRejected("AUTHENTICATE failed."))
    with pytest.raises(LoginRejected, match="AUTHENTICATE failed") as caught:
        steps.throw(TokenRefused(ANN, timedelta(minutes=9)))
    assert caught.value.retry_after == timedelta(minutes=9)


def test_the_servers_words_are_noted_when_the_refresh_fails() -> None:
    steps = procedure()
    next(steps)
    steps.send(ACCOUNT)
    steps.throw(TokenRejected("AUTHENTICATE failed."))
    with pytest.raises(BackingOff) as caught:
        steps.throw(BackingOff(ANN, "503", timedelta(minutes=1)))
    assert caught.value.__notes__ == ["The mail server said: AUTHENTICATE failed."]


def test_a_mailbox_that_is_not_connected_is_tried_three_times() -> None:
    """Each attempt has the same token and comes after a longer pause."""
    steps = procedure()
    next(steps)
    assert steps.send(ACCOUNT).args[0].token == TOKEN
    assert steps.throw(NOT_CONNECTED).args == (1.0,)
    assert steps.send(None).args[0].token == TOKEN
    assert steps.throw(NOT_CONNECTED).args == (3.0,)
    assert steps.send(None).args[0].token == TOKEN
    with pytest.raises(MailboxNotConnected):
        steps.throw(NOT_CONNECTED)


def test_no_pause_goes_beyond_the_time_limit() -> None:
    steps = procedure({"timeout": 0.5})
    next(steps)
    steps.send(ACCOUNT)
    with pytest.raises(MailboxNotConnected):
        steps.throw(NOT_CONNECTED)


def test_an_account_without_oauth_has_nothing_to_log_in_with() -> None:
    with pytest.raises(AccountInactive):
        first_login(replace(ACCOUNT, use_oauth=False, token=None))


@pytest.mark.parametrize(
    ("login_name", "user", "expected"),
    [
        (None, None, ANN),
        ("ann.smith@contoso.onmicrosoft.com", None, "ann.smith@contoso.onmicrosoft.com"),
        ("ann.smith@contoso.onmicrosoft.com", "sales@contoso.com", "sales@contoso.com"),
    ],
)
def test_the_user_name_is_the_login_name_unless_the_caller_says_otherwise(
    login_name: str | None, user: str | None, expected: str
) -> None:
    assert first_login(replace(ACCOUNT, servers=MailServers(login_name=login_name)), {"user": user}).user == expected


def test_a_token_goes_to_allowed_hosts_only() -> None:
    elsewhere = replace(ACCOUNT, servers=MailServers(imap_host="evil.example"))
    with pytest.raises(MailHostNotAllowed):
        first_login(elsewhere)
    assert first_login(elsewhere, {"mail_hosts": ["evil.example"]}).host == "evil.example"


@pytest.mark.parametrize(
    "servers",
    [
        MailServers(imap_host="outlook..office365.com"),
        MailServers(imap_host=""),
        MailServers(imap_host="a\nb"),
        MailServers(imap_host="x" * 64),
        MailServers(imap_port=0),
        MailServers(imap_port=99_999_999_999),
    ],
)
def test_a_host_that_cannot_be_looked_up_is_unavailable(servers: MailServers) -> None:
    with pytest.raises(MailUnavailable, match="not a host name and port") as caught:
        first_login(replace(ACCOUNT, servers=servers))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("left", "session"),
    [
        (timedelta(hours=1), timedelta(minutes=59)),
        (timedelta(minutes=10), timedelta(minutes=9)),
        (timedelta(seconds=30), timedelta(seconds=27)),
        (timedelta(0), timedelta(0)),
        (timedelta(seconds=-5), timedelta(0)),
    ],
)
def test_a_session_ends_before_its_token(left: timedelta, session: timedelta) -> None:
    assert first_login(ACCOUNT).reconnect_by(TOKEN.expires_at - left) == TOKEN.expires_at - left + session
