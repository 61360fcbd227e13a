"""Mailboxes, logged in with XOAUTH2 and the tokens of a TokenClient.

>>> with open_imap(client, "ann@contoso.com") as imap:                  # doctest: +SKIP
...     imap.select("INBOX")

worker.mail.imapclient has the same for IMAPClient, worker.mail.aio for asyncio; each needs an extra of that name.
Arguments and errors are those of worker.mail.doors.Door.
"""

from worker.domain.errors import TokenRefused
from worker.domain.mail_hosts import MailHostNotAllowed
from worker.mail.errors import (
    LoginRejected,
    MailboxNotConnected,
    MailboxRefused,
    MailUnavailable,
)
from worker.mail.imap import ImapSession, open_imap
from worker.mail.login import LoginOptions
from worker.mail.pop import PopSession, open_pop
from worker.mail.smtp import SmtpSession, open_smtp
from worker.mail.source import AsyncTokenSource, TokenSource

__all__ = [
    "AsyncTokenSource",
    "ImapSession",
    "LoginOptions",
    "LoginRejected",
    "MailHostNotAllowed",
    "MailUnavailable",
    "MailboxNotConnected",
    "MailboxRefused",
    "PopSession",
    "SmtpSession",
    "TokenRefused",
    "TokenSource",
    "open_imap",
    "open_pop",
    "open_smtp",
]
