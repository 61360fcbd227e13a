"""IMAP over IMAPClient: needs the extra `imapclient`."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from ssl import SSLContext

from worker.clock import utcnow
from worker.mail.imap import imap_answer
from worker.mail.login import TIMEOUT, Login, Wish, log_in, reaching, run, understanding
from worker.mail.refusal import Answer
from worker.mail.source import TokenSource
from worker.mail.xoauth2 import MECHANISM

try:
    from imapclient import IMAPClient
    from imapclient.exceptions import IMAPClientError, LoginError
except ModuleNotFoundError as missing:
    message = f"{missing.name} is not installed: pip install 'token-refresh-worker[imapclient]'"
    raise ImportError(message) from None


class ImapClientSession(IMAPClient):  # type: ignore[misc]  # untyped
    """An IMAPClient that knows when it must be replaced."""

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
) -> Iterator[ImapClientSession]:
    """As worker.mail.open_imap, with the methods of IMAPClient."""
    wish = Wish(email=email, user=user, min_ttl=min_ttl, timeout=timeout, tls=ssl_context)
    session = run(log_in(source, wish, _connect))
    with ExitStack() as ending:
        ending.callback(session.drop)
        yield session
        with suppress(IMAPClientError, OSError):
            session.logout()


def _connect(login: Login) -> ImapClientSession:
    host = login.servers.imap_host
    conversation = login.conversation()
    with reaching(host, IMAPClientError):
        session = ImapClientSession(
            host, login.servers.imap_port, ssl=True, ssl_context=login.tls, timeout=login.timeout
        )
    with ExitStack() as undo:
        undo.callback(session.drop)
        with understanding(login, host, conversation, _answer, IMAPClientError):
            session.sasl_login(MECHANISM, lambda challenge: conversation.reply(challenge).encode())
            # Exchange says only to the first command whether the mailbox can be opened, too.
            session.list_folders("", "")
        session.reconnect_by = login.reconnect_by(utcnow())
        undo.pop_all()
    return session


def _answer(error: Exception) -> Answer | None:
    # IMAPClient tells a lost connection as a failed login, too.
    cause = error.__context__ if isinstance(error, LoginError) else None
    return imap_answer(cause if isinstance(cause, Exception) else error)
