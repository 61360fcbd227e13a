"""The responses of Exchange and Gmail to a login, and their effect in every door."""

import asyncio
import base64
import gc
import logging
import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.integration.mail.doors import DOORS, IMAP, SMTP, Door, through_pop
from tests.integration.mail.exchange import CHALLENGE, HANG_UP, Exchange, serving
from tests.integration.mail.sources import LOCAL, Awaited, HeldSource
from worker.domain.account import MailServers
from worker.domain.errors import AccountInactive, InvalidInput
from worker.domain.mail_hosts import MICROSOFT_MAIL_HOSTS
from worker.mail import (
    MailboxRefused,
    MailHostNotAllowed,
    MailUnavailable,
    TokenRefused,
    aio,
    imapclient,
    open_imap,
    open_pop,
    open_smtp,
)

ANN = "ann@contoso.com"
REFUSALS = {
    **dict.fromkeys(IMAP, "NO AUTHENTICATE failed."),
    **dict.fromkeys(SMTP, "535 5.7.3 Authentication unsuccessful [MN2PR13CA0005.namprd13.prod.outlook.com]"),
    through_pop: "-ERR Authentication failure: unknown user name or bad password.",
}
THROTTLED = {
    **dict.fromkeys(IMAP, "BAD Request is throttled. Suggested Backoff Time: 90000 milliseconds"),
    **dict.fromkeys(SMTP, "421 4.3.2 Service not available. Suggested Backoff Time: 90000 milliseconds"),
    through_pop: "-ERR Request is throttled. Suggested Backoff Time: 90000 milliseconds",
}
every_door = pytest.mark.parametrize("door", DOORS)
Opened = Callable[[Exchange], HeldSource]


@pytest.fixture(name="trust")
def _trust(script_trust: ssl.SSLContext) -> ssl.SSLContext:
    return script_trust


@pytest.fixture(name="opened")
def _opened(script_tls: ssl.SSLContext) -> Iterator[Opened]:
    """Starts a server and returns the source of an account on it."""
    with ExitStack() as running:
        yield lambda exchange: HeldSource(running.enter_context(serving(exchange, script_tls)))


def all_gone(exchange: Exchange, connections: int) -> bool:
    """Whether this number of connections was opened and all are closed. It waits while one is open."""
    end = time.monotonic() + 30
    while exchange.lost < connections and time.monotonic() < end:
        time.sleep(0.01)
    return exchange.lost == connections


@every_door
@pytest.mark.parametrize("challenge", [None, CHALLENGE], ids=["plain", "challenge"])
def test_a_rejected_token_is_reported_and_the_next_one_is_used(
    opened: Opened, trust: ssl.SSLContext, door: Door, challenge: str | None
) -> None:
    """Exchange rejects without a challenge. Gmail sends one and waits for an empty line."""
    exchange = Exchange(verdicts=[REFUSALS[door], ""], challenge=challenge)
    source = opened(exchange)
    door(source, ANN, ssl_context=trust)
    assert source.reported == [(ANN, 1)]
    first, second = exchange.tokens
    assert first.startswith(f"user={ANN}\x01auth=Bearer token-1.")
    assert second.startswith(f"user={ANN}\x01auth=Bearer token-2.")
    assert all_gone(exchange, 2)


@every_door
def test_a_second_rejection_is_final(opened: Opened, trust: ssl.SSLContext, door: Door) -> None:
    exchange = Exchange(verdicts=[REFUSALS[door]], challenge=CHALLENGE)
    source = opened(exchange)
    with pytest.raises(TokenRefused) as caught:
        door(source, ANN, ssl_context=trust)
    assert "status 401, scope https://mail.google.com/" in str(caught.value.__cause__)
    assert (source.reported, len(exchange.tokens)) == ([(ANN, 1)], 2)
    assert all_gone(exchange, 2)


@pytest.mark.parametrize("door", IMAP)
def test_a_mailbox_that_cannot_be_opened_now_is_unavailable(opened: Opened, trust: ssl.SSLContext, door: Door) -> None:
    """The server takes the token and fails afterwards."""
    exchange = Exchange(trouble="NO [UNAVAILABLE] Server error, try again later.")
    source = opened(exchange)
    with pytest.raises(MailUnavailable, match="UNAVAILABLE"):
        door(source, ANN, ssl_context=trust)
    assert source.reported == []
    assert all_gone(exchange, 1)
    assert not [line for line in exchange.received if "SELECT" in line], "no session was returned"


@pytest.mark.parametrize("door", SMTP)
def test_disabled_smtp_causes_no_refresh(opened: Opened, trust: ssl.SSLContext, door: Door) -> None:
    said = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant."
    exchange = Exchange(verdicts=[said])
    source = opened(exchange)
    with pytest.raises(MailboxRefused, match="SmtpClientAuthentication is disabled"):
        door(source, ANN, ssl_context=trust)
    assert source.reported == []
    assert all_gone(exchange, 1)


@every_door
def test_a_throttling_server_says_when_to_retry(opened: Opened, trust: ssl.SSLContext, door: Door) -> None:
    exchange = Exchange(verdicts=[THROTTLED[door]])
    source = opened(exchange)
    with pytest.raises(MailUnavailable) as caught:
        door(source, ANN, ssl_context=trust)
    assert caught.value.retry_after == timedelta(seconds=90)
    assert source.reported == []
    assert all_gone(exchange, 1)


@every_door
@pytest.mark.parametrize("verdict", [HANG_UP, "endless"])
def test_a_server_that_hangs_up_or_sends_too_much_is_unavailable(
    opened: Opened, trust: ssl.SSLContext, door: Door, verdict: str
) -> None:
    exchange = Exchange(verdicts=[verdict])
    source = opened(exchange)
    with pytest.raises((MailUnavailable, MailboxRefused)):
        door(source, ANN, ssl_context=trust, timeout=2)
    assert source.reported == []
    assert all_gone(exchange, 1)


@every_door
def test_a_server_without_free_connections_is_unavailable(opened: Opened, trust: ssl.SSLContext, door: Door) -> None:
    """The server says so instead of a greeting, before it sees a token."""
    greeting = {
        **dict.fromkeys(IMAP, "* BYE Too many connections"),
        **dict.fromkeys(SMTP, "421 4.3.2 Too many connections"),
        through_pop: "-ERR Too many connections",
    }
    exchange = Exchange(greeting=greeting[door])
    source = opened(exchange)
    with pytest.raises(MailUnavailable):
        door(source, ANN, ssl_context=trust, timeout=2)
    assert (source.reported, exchange.tokens) == ([], [])
    assert all_gone(exchange, 1)


@every_door
def test_a_refused_connection_is_unavailable(door: Door) -> None:
    nowhere = MailServers(
        imap_host="localhost", imap_port=1, pop_host="localhost", pop_port=1, smtp_host="localhost", smtp_port=1
    )
    with pytest.raises(MailUnavailable, match=r"localhost: .*(refused|Connect call failed)"):
        door(HeldSource(nowhere), ANN)


@pytest.mark.parametrize("door", SMTP)
def test_no_token_is_sent_in_the_clear(opened: Opened, trust: ssl.SSLContext, door: Door) -> None:
    exchange = Exchange(starttls=False)
    with pytest.raises(MailUnavailable, match=r"(?i)starttls"):
        door(opened(exchange), ANN, ssl_context=trust)
    assert exchange.tokens == []
    assert all_gone(exchange, 1)


@every_door
def test_a_shared_mailbox_is_opened_with_the_members_token(opened: Opened, trust: ssl.SSLContext, door: Door) -> None:
    exchange = Exchange()
    source = opened(exchange)
    door(source, ANN, ssl_context=trust, user="sales@contoso.com", min_ttl=900)
    assert exchange.tokens[0].startswith("user=sales@contoso.com\x01auth=Bearer token-1.")
    assert source.wanted == [900]


@every_door
def test_a_login_name_may_differ_from_the_address(opened: Opened, trust: ssl.SSLContext, door: Door) -> None:
    """The login name is the user principal name.

    If it differs from the address, SMTP accepts nothing else (chatwoot#14522).
    """
    exchange = Exchange()
    source = HeldSource(replace(opened(exchange).servers, login_name="ann.smith@contoso.onmicrosoft.com"))
    door(source, ANN, ssl_context=trust)
    assert exchange.tokens[0].startswith("user=ann.smith@contoso.onmicrosoft.com\x01")
    assert source.reported == []


@every_door
def test_no_connection_is_made_to_a_host_that_is_not_allowed(opened: Opened, trust: ssl.SSLContext, door: Door) -> None:
    """Example: the account's row was changed by an attacker."""
    exchange = Exchange()
    with pytest.raises(MailHostNotAllowed, match=r"'localhost' is not allowed: .* WORKER_MAIL_HOSTS"):
        door(opened(exchange), ANN, ssl_context=trust, mail_hosts=MICROSOFT_MAIL_HOSTS)
    assert (exchange.received, exchange.lost) == ([], 0)


@pytest.mark.parametrize("door", SMTP)
def test_the_name_of_this_machine_is_not_looked_up(
    opened: Opened, trust: ssl.SSLContext, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow reverse look-up would add to the time limit."""
    monkeypatch.setattr(socket, "getfqdn", lambda: "this.machine.example")
    exchange = Exchange()
    door(opened(exchange), ANN, ssl_context=trust)
    greetings = {line for line in exchange.received if line.upper().startswith("EHLO")}
    assert {greeting.split()[1] for greeting in greetings} == {"[127.0.0.1]"}


def test_debug_output_of_smtplib_holds_no_token(
    opened: Opened, trust: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An attribute of the class switches it on for all sessions."""
    monkeypatch.setattr(smtplib.SMTP, "debuglevel", 1)
    exchange = Exchange()
    with open_smtp(opened(exchange), ANN, ssl_context=trust, mail_hosts=LOCAL) as smtp:
        smtp.set_debuglevel(1)
        smtp.noop()
    printed = capsys.readouterr().err
    assert "noop" in printed
    assert not [trace for trace in traces(exchange) if trace in printed]


@every_door
def test_a_user_name_with_control_characters_is_not_sent(opened: Opened, trust: ssl.SSLContext, door: Door) -> None:
    exchange = Exchange()
    with pytest.raises(InvalidInput):
        door(opened(exchange), ANN, ssl_context=trust, user="ann\x01auth=Bearer x")
    assert exchange.tokens == []


@every_door
def test_an_account_without_oauth_is_not_tried(opened: Opened, trust: ssl.SSLContext, door: Door) -> None:
    exchange = Exchange()
    source = HeldSource(opened(exchange).servers, use_oauth=False)
    with pytest.raises(AccountInactive):
        door(source, ANN, ssl_context=trust)
    assert exchange.received == []


def traces(exchange: Exchange) -> list[str]:
    """Parts of the sent tokens, in plain text and in base64."""
    return [spelt[60:100] for token in exchange.tokens for spelt in (token, base64.b64encode(token.encode()).decode())]


@every_door
def test_a_token_is_in_no_log(
    opened: Opened, trust: ssl.SSLContext, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """The libraries log at their most verbose level."""
    caplog.set_level(logging.DEBUG)
    exchange = Exchange(verdicts=[REFUSALS[door], ""], challenge=CHALLENGE)
    door(opened(exchange), ANN, ssl_context=trust)
    assert not [trace for trace in traces(exchange) if trace in caplog.text]


@every_door
def test_a_token_that_the_server_repeats_is_in_no_message_and_no_log(
    opened: Opened, trust: ssl.SSLContext, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    status = {**dict.fromkeys(IMAP, "NO"), **dict.fromkeys(SMTP, "535"), through_pop: "-ERR"}[door]
    exchange = Exchange(verdicts=[status + " not understood: {response:.300}"])
    with pytest.raises(TokenRefused) as caught:
        door(opened(exchange), ANN, ssl_context=trust)
    shown = str(caught.value) + str(caught.value.__cause__)
    assert "not understood: …" in shown
    assert not [trace for trace in traces(exchange) if trace in shown + caplog.text]


@every_door
def test_a_session_ends_with_a_logout(opened: Opened, trust: ssl.SSLContext, door: Door) -> None:
    exchange = Exchange()
    door(opened(exchange), ANN, ssl_context=trust)
    assert all_gone(exchange, 1)
    assert exchange.logouts == 1


@pytest.mark.parametrize(
    ("opening", "method"),
    [(open_imap, "logout"), (imapclient.open_imap, "logout"), (open_smtp, "quit"), (open_pop, "quit")],
)
def test_a_session_may_be_ended_by_hand(
    opened: Opened, trust: ssl.SSLContext, opening: Callable[..., Any], method: str
) -> None:
    exchange = Exchange()
    with opening(opened(exchange), ANN, ssl_context=trust, mail_hosts=LOCAL) as session:
        getattr(session, method)()
    assert all_gone(exchange, 1)
    assert exchange.logouts == 1


@pytest.mark.parametrize("opening", [open_imap, imapclient.open_imap, open_smtp, open_pop])
def test_a_block_that_fails_ends_the_connection_without_a_logout(
    opened: Opened, trust: ssl.SSLContext, opening: Callable[..., Any]
) -> None:
    """A polite end would commit the pending deletion or message."""
    exchange = Exchange()
    with pytest.raises(ZeroDivisionError), opening(opened(exchange), ANN, ssl_context=trust, mail_hosts=LOCAL):
        raise ZeroDivisionError
    assert all_gone(exchange, 1)
    assert exchange.logouts == 0


@pytest.mark.parametrize("opening", [aio.open_imap, aio.open_smtp])
def test_an_asyncio_block_that_is_cancelled_ends_the_connection(
    opened: Opened, trust: ssl.SSLContext, opening: Callable[..., Any]
) -> None:
    """The connection is closed at once.

    The loop may end before the server responds, and an open connection would leak.
    """
    exchange = Exchange(linger=0.5)
    source = Awaited(opened(exchange))

    async def wait_for_ever(entered: asyncio.Event) -> None:
        async with opening(source, ANN, ssl_context=trust, mail_hosts=LOCAL):
            entered.set()
            await asyncio.Event().wait()

    async def cancel() -> None:
        entered = asyncio.Event()
        session = asyncio.create_task(wait_for_ever(entered))
        await asyncio.wait_for(entered.wait(), 60)
        session.cancel()
        await session

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    gc.collect()  # an open connection would warn here, which fails the test
    assert all_gone(exchange, 1)
    assert exchange.logouts == 0
