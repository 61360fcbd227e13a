"""Mail is read at a real server while tokens are replaced."""

import asyncio
import imaplib
import time
from datetime import datetime, timedelta
from ssl import SSLContext
from uuid import uuid4

import pytest

from tests.integration.mail.office import HOUR, Office
from tests.integration.mail.sources import Awaited, ServiceSource
from tests.waiting import wait_for
from worker.clock import utcnow
from worker.mail import aio, imapclient, open_imap

MESSAGE = b"From: bob@contoso.com\r\nSubject: Lunch?\r\n\r\nAt noon.\r\n"
SECONDS = timedelta(seconds=6)  # one second less because `exp` counts whole seconds, and time for a slow login


def subjects(session: imaplib.IMAP4) -> list[bytes]:
    session.select("INBOX")
    _, [numbers] = session.search(None, "ALL")
    answers = [session.fetch(number.decode(), "(BODY[HEADER.FIELDS (SUBJECT)])")[1][0] for number in numbers.split()]
    return [answer[1].strip() for answer in answers if isinstance(answer, tuple)]


def wait_until(instant: datetime) -> None:
    time.sleep(max(0.0, (instant - utcnow()).total_seconds()))


@pytest.fixture(name="ann")
def _ann() -> str:
    """Another mailbox for each test."""
    return f"ann.{uuid4().hex}@contoso.com"


def test_a_message_is_appended_listed_and_fetched(
    office: Office, source: ServiceSource, trust: SSLContext, ann: str
) -> None:
    office.sign_in(ann)
    with open_imap(source, ann, ssl_context=trust) as imap:
        imap.append("INBOX", "", "", MESSAGE)
        assert subjects(imap) == [b"Subject: Lunch?"]


def test_a_session_that_ends_with_its_token_is_replaced(
    office: Office, source: ServiceSource, trust: SSLContext, ann: str
) -> None:
    """The token expires, the server ends the session, and the next session lists the inbox with the next token."""
    office.sign_in(ann, lifetime=SECONDS, later=HOUR)
    expiry = office.expiry(ann)
    with open_imap(source, ann, ssl_context=trust) as imap:
        imap.append("INBOX", "", "", MESSAGE)
        assert utcnow() < imap.reconnect_by < expiry
        wait_until(expiry)
        office.dovecot.kick(ann)
        with pytest.raises(imaplib.IMAP4.abort):  # a moment later
            wait_for(lambda: imap.noop()[0] != "OK", about="the end of the session")
    with open_imap(source, ann, ssl_context=trust) as imap:
        assert subjects(imap) == [b"Subject: Lunch?"]
        assert imap.reconnect_by > utcnow() + HOUR - timedelta(minutes=2)
    assert (office.refreshes(ann), source.reported) == (1, [])


def test_a_client_that_reconnects_in_time_is_never_disconnected(
    office: Office, source: ServiceSource, trust: SSLContext, ann: str
) -> None:
    """A client that reconnects by ``reconnect_by`` gets another token each time, and no token is rejected."""
    office.sign_in(ann, lifetime=SECONDS, later=SECONDS)
    for _ in range(2):
        with open_imap(source, ann, ssl_context=trust) as imap:
            imap.noop()
            wait_until(imap.reconnect_by)
            imap.noop()
    assert (office.refreshes(ann), source.reported) == (1, [])


def test_imapclient_waits_for_mail(office: Office, source: ServiceSource, trust: SSLContext, ann: str) -> None:
    office.sign_in(ann)
    with imapclient.open_imap(source, ann, ssl_context=trust) as watching:
        watching.select_folder("INBOX")
        watching.idle()
        with open_imap(source, ann, ssl_context=trust) as writing:
            writing.append("INBOX", "", "", MESSAGE)
        assert (1, b"EXISTS") in watching.idle_check(timeout=30)
        watching.idle_done()


def test_aioimaplib_waits_for_mail(office: Office, source: ServiceSource, trust: SSLContext, ann: str) -> None:

    async def wait() -> list[bytes]:
        async with aio.open_imap(Awaited(source), ann, ssl_context=trust) as watching:
            await watching.select("INBOX")
            idle = await watching.idle_start(timeout=30)
            async with aio.open_imap(Awaited(source), ann, ssl_context=trust) as writing:
                await writing.append(MESSAGE)
            pushed: list[bytes] = await watching.wait_server_push()
            watching.idle_done()
            await asyncio.wait_for(idle, 30)
            return pushed

    office.sign_in(ann)
    assert b"1 EXISTS" in asyncio.run(wait())
