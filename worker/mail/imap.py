"""IMAP over the standard library."""

import imaplib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from ssl import SSLContext

from worker.clock import utcnow
from worker.mail.login import TIMEOUT, Login, Wish, log_in, reaching, run, understanding
from worker.mail.refusal import Answer
from worker.mail.source import TokenSource
from worker.mail.xoauth2 import MECHANISM


class ImapSession(imaplib.IMAP4_SSL):
    """An imaplib session that knows when it must be replaced."""

    #: Exchange ends the session (``BYE Session invalidated - AccessTokenExpired``) soon after this instant.
    reconnect_by: datetime

    def drop(self) -> None:
        """Close the connection without a word; harmless if it is closed."""
        with suppress(OSError):
            self.shutdown()


@contextmanager
def open_imap(
    source: TokenSource,
    email: str,
    *,
    user: str | None = None,
    min_ttl: float | None = None,
    timeout: float = TIMEOUT,
    ssl_context: SSLContext | None = None,
) -> Iterator[ImapSession]:
    """A session that is logged in and has been seen to work; logged out at the end, closed on every path.

    ``user`` is the address of a shared mailbox that ``email`` may open. ``min_ttl`` is how many seconds the token must
    still live, if one can be had (by default as in TokenClient.get). ``timeout`` is in seconds, for each answer.

    Raises what ``source`` raises, TokenRefused after one forced refresh, MailboxRefused, MailUnavailable.
    """
    wish = Wish(email=email, user=user, min_ttl=min_ttl, timeout=timeout, tls=ssl_context)
    session = run(log_in(source, wish, _connect))
    with ExitStack() as ending:
        ending.callback(session.drop)
        yield session
        if session.state != "LOGOUT":
            with suppress(imaplib.IMAP4.error, OSError):
                session.logout()


def _connect(login: Login) -> ImapSession:
    host = login.servers.imap_host
    conversation = login.conversation()
    with reaching(host, imaplib.IMAP4.error):
        session = ImapSession(host, login.servers.imap_port, ssl_context=login.tls, timeout=login.timeout)
    with ExitStack() as undo:
        undo.callback(session.drop)
        with understanding(login, host, conversation, imap_answer, imaplib.IMAP4.error):
            session.authenticate(MECHANISM, lambda challenge: conversation.reply(challenge).encode())
            # Exchange says only to the first command whether the mailbox can be opened, too.
            status, said = session.list('""', '""')
            if status != "OK":  # imaplib raises for a BAD, and returns a NO
                raise session.error(f"LIST command error: {status} {said!r}")
        session.reconnect_by = login.reconnect_by(utcnow())
        undo.pop_all()
    return session


def imap_answer(error: Exception) -> Answer | None:
    """How the server refused; None if it hung up or was not understood."""
    if not isinstance(error, imaplib.IMAP4.error) or isinstance(error, imaplib.IMAP4.abort):
        return None
    text = str(error)
    return Answer("BAD" if "command error: BAD" in text else "NO", text)
