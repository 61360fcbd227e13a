"""Every way into a mailbox, so that one test covers all of them."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests.integration.mail.sources import LOCAL, Awaited
from worker.mail import TokenSource, aio, imapclient, open_imap, open_pop, open_smtp

#: Opens a session, sends one command and ends the session. Returns the instant by which it had to be replaced.
Door = Callable[..., datetime]


def through_imap(source: TokenSource, email: str, command: str = "select", **options: Any) -> datetime:
    with open_imap(source, email, **{"mail_hosts": LOCAL, **options}) as session:
        assert (session.noop() if command == "noop" else session.select("INBOX"))[0] == "OK"
        return session.reconnect_by


def through_imapclient(source: TokenSource, email: str, command: str = "select", **options: Any) -> datetime:
    with imapclient.open_imap(source, email, **{"mail_hosts": LOCAL, **options}) as session:
        assert session.noop() if command == "noop" else b"EXISTS" in session.select_folder("INBOX")
        return session.reconnect_by


def through_pop(source: TokenSource, email: str, command: str = "noop", **options: Any) -> datetime:
    with open_pop(source, email, **{"mail_hosts": LOCAL, **options}) as session:
        assert session.noop().startswith(b"+OK")
        return session.reconnect_by


def through_smtp(source: TokenSource, email: str, command: str = "noop", **options: Any) -> datetime:
    with open_smtp(source, email, **{"mail_hosts": LOCAL, **options}) as session:
        assert session.noop()[0] == 250
        return session.reconnect_by


def through_aio_imap(source: TokenSource, email: str, command: str = "select", **options: Any) -> datetime:
    async def enter() -> datetime:
        async with aio.open_imap(Awaited(source), email, **{"mail_hosts": LOCAL, **options}) as session:
            done = session.noop() if command == "noop" else session.select("INBOX")
            assert (await done).result == "OK"
            return session.reconnect_by

    return asyncio.run(enter())


def through_aio_smtp(source: TokenSource, email: str, command: str = "noop", **options: Any) -> datetime:
    async def enter() -> datetime:
        async with aio.open_smtp(Awaited(source), email, **{"mail_hosts": LOCAL, **options}) as session:
            assert (await session.noop()).code == 250
            return session.reconnect_by

    return asyncio.run(enter())


IMAP = (through_imap, through_imapclient, through_aio_imap)
SMTP = (through_smtp, through_aio_smtp)
DOORS = (*IMAP, *SMTP, through_pop)


def library(door: Door) -> str:
    """The library's name in mail-servers.json."""
    return {
        through_imap: "imaplib",
        through_imapclient: "imapclient",
        through_aio_imap: "aioimaplib",
        through_pop: "poplib",
        through_smtp: "smtplib",
        through_aio_smtp: "aiosmtplib",
    }[door]


def protocol(door: Door) -> str:
    return "pop" if door is through_pop else "smtp" if door in SMTP else "imap"
