"""SMTP submission over the standard library: STARTTLS, then AUTH."""

import smtplib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from ssl import SSLContext

from worker.clock import utcnow
from worker.mail.login import TIMEOUT, Login, Wish, log_in, reaching, run, understanding
from worker.mail.refusal import Answer
from worker.mail.source import TokenSource
from worker.mail.xoauth2 import MECHANISM


class SmtpSession(smtplib.SMTP):
    """A smtplib session that knows when it must be replaced."""

    #: The server may end the session soon after this instant.
    reconnect_by: datetime


@contextmanager
def open_smtp(
    source: TokenSource,
    email: str,
    *,
    user: str | None = None,
    min_ttl: float | None = None,
    timeout: float = TIMEOUT,
    ssl_context: SSLContext | None = None,
) -> Iterator[SmtpSession]:
    """A session over TLS, logged in: for send_message. Ended with QUIT, closed on every path.

    Arguments and errors are those of open_imap.
    """
    wish = Wish(email=email, user=user, min_ttl=min_ttl, timeout=timeout, tls=ssl_context)
    session = run(log_in(source, wish, _connect))
    with ExitStack() as ending:
        ending.callback(session.close)
        yield session
        with suppress(smtplib.SMTPException, OSError):
            session.quit()


def _connect(login: Login) -> SmtpSession:
    host = login.servers.smtp_host
    conversation = login.conversation()
    with ExitStack() as undo:
        with reaching(host):
            session = SmtpSession(host, login.servers.smtp_port, timeout=login.timeout)
            undo.callback(session.close)
            session.starttls(context=login.tls)  # raises unless the server offers it
            session.ehlo()
        with understanding(login, host, conversation, smtp_answer):
            session.auth(MECHANISM, lambda challenge=b"": conversation.reply(challenge), initial_response_ok=False)
        session.reconnect_by = login.reconnect_by(utcnow())
        undo.pop_all()
    return session


def smtp_answer(error: Exception) -> Answer | None:
    """How the server refused; None if it hung up or was not understood."""
    if not isinstance(error, smtplib.SMTPResponseException):
        return None
    text = error.smtp_error
    return Answer(str(error.smtp_code), text.decode(errors="replace") if isinstance(text, bytes) else text)
