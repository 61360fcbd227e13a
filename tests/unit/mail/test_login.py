"""The steps of a login without a server, and the length of a session."""

import ssl
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.factories import NOW
from worker.domain.account import MailServers
from worker.domain.errors import AccountInactive, TokenRefused
from worker.domain.secret import Secret
from worker.domain.token import AccessToken, MailAccount
from worker.mail.login import Login, TokenRejected, Wish, log_in

ANN = "ann@contoso.com"
WISH = Wish(email=ANN, user=None, min_ttl=900, timeout=30, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
TOKEN = AccessToken(email=ANN, secret=Secret("token"), obtained_at=NOW, expires_at=NOW + timedelta(hours=1), version=7)
NEWER = replace(TOKEN, version=8)
ACCOUNT = MailAccount(email=ANN, servers=MailServers(), use_oauth=True, token=TOKEN)


class Source:
    def load(self, email: str, *, min_ttl: float | None = None) -> MailAccount: ...  # type: ignore[empty-body]

    def report_rejected(self, email: str, version: int) -> AccessToken: ...  # type: ignore[empty-body]


def attempt(login: Login) -> None: ...


def procedure() -> Any:
    return log_in(Source(), WISH, attempt)


def test_the_order_of_the_steps() -> None:
    """They are: load, log in, report the rejected version, log in with the newer token, give up."""
    steps = procedure()
    assert next(steps).keywords == {"min_ttl": 900}
    assert steps.send(ACCOUNT).args[0].token == TOKEN
    assert steps.throw(TokenRejected()).args == (ANN, 7)
    assert steps.send(NEWER).args[0].token == NEWER
    with pytest.raises(TokenRefused):
        steps.throw(TokenRejected())


def test_a_session_ends_the_procedure() -> None:
    steps = procedure()
    next(steps)
    steps.send(ACCOUNT)
    with pytest.raises(StopIteration) as done:
        steps.send("session")
    assert done.value.value == "session"


def test_an_account_without_oauth_has_nothing_to_log_in_with() -> None:
    steps = procedure()
    next(steps)
    with pytest.raises(AccountInactive):
        steps.send(replace(ACCOUNT, use_oauth=False, token=None))


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
    login = Login(email=ANN, user=ANN, servers=MailServers(), token=TOKEN, timeout=30, tls=WISH.tls or ssl.SSLContext())
    assert login.reconnect_by(TOKEN.expires_at - left) == TOKEN.expires_at - left + session
