"""POP over the standard library, which knows no SASL: AUTH in two lines, as Exchange wants it."""

import poplib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from ssl import SSLContext

from worker.clock import utcnow
from worker.mail.login import TIMEOUT, Login, Wish, log_in, reaching, run, understanding
from worker.mail.refusal import Answer
from worker.mail.source import TokenSource
from worker.mail.xoauth2 import MECHANISM, Conversation


class PopSession(poplib.POP3_SSL):
    """A poplib session that knows XOAUTH2, and when it must be replaced."""

    #: The server may end the session soon after this instant.
    reconnect_by: datetime

    def __init__(self, host: str, port: int, *, timeout: float, context: SSLContext) -> None:
        try:
            super().__init__(host, port, timeout=timeout, context=context)
        except BaseException:
            # poplib leaves the connection open when the greeting is not to its taste.
            if hasattr(self, "file"):
                self.close()
            raise

    def authenticate(self, conversation: Conversation) -> None:
        """Raises poplib.error_proto."""
        said = self._say(f"AUTH {MECHANISM}".encode())
        while not said.startswith(b"+OK"):
            said = self._say(conversation.reply_line(said.removeprefix(b"+").strip()))

    def _say(self, line: bytes) -> bytes:
        self._putline(line)  # type: ignore[attr-defined]
        return bytes(self._getresp())  # type: ignore[attr-defined]


@contextmanager
def open_pop(
    source: TokenSource,
    email: str,
    *,
    user: str | None = None,
    min_ttl: float | None = None,
    timeout: float = TIMEOUT,
    ssl_context: SSLContext | None = None,
) -> Iterator[PopSession]:
    """A session, logged in; closed on every path. Deletions happen only if the block ends well: QUIT commits them.

    Arguments and errors are those of open_imap; poplib's errors if QUIT fails.
    """
    wish = Wish(email=email, user=user, min_ttl=min_ttl, timeout=timeout, tls=ssl_context)
    session = run(log_in(source, wish, _connect))
    with ExitStack() as ending:
        ending.callback(session.close)
        yield session
        if session.sock is not None:
            session.quit()


def _connect(login: Login) -> PopSession:
    host = login.servers.pop_host
    conversation = login.conversation()
    with reaching(host, poplib.error_proto):
        session = PopSession(host, login.servers.pop_port, timeout=login.timeout, context=login.tls)
    with ExitStack() as undo:
        undo.callback(session.close)
        with understanding(login, host, conversation, _answer, poplib.error_proto):
            session.authenticate(conversation)
        session.reconnect_by = login.reconnect_by(utcnow())
        undo.pop_all()
    return session


def _answer(error: Exception) -> Answer | None:
    if not isinstance(error, poplib.error_proto):
        return None
    line = error.args[0]
    text = line.decode(errors="replace") if isinstance(line, bytes) else str(line)
    return None if text == "-ERR EOF" else Answer("-ERR", text.removeprefix("-ERR").strip())
