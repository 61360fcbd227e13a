"""IMAP over aioimaplib, whose own xoauth2() waits for ever on an error challenge, and logs the token in base64."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import datetime
from ssl import SSLContext

from aioimaplib import AUTH, IMAP4_SSL, LOGOUT, AioImapException, Command, Response

from worker.clock import utcnow
from worker.mail.login import TIMEOUT, Login, Wish, log_in, reaching, refused, run_async
from worker.mail.refusal import Answer
from worker.mail.source import AsyncTokenSource
from worker.mail.xoauth2 import MECHANISM, Conversation, EndlessChallenge


class _Authenticate(Command):  # type: ignore[misc]  # untyped
    """AUTHENTICATE, answering what the server asks on the way."""

    def __init__(self, tag: str, send: Callable[[bytes], None], conversation: Conversation) -> None:
        super().__init__("AUTHENTICATE", tag, MECHANISM)
        self._send = send
        self._conversation = conversation

    def append_to_resp(self, line: bytes, result: str = "Pending") -> None:
        if not line.startswith(b"+"):
            super().append_to_resp(line, result)
            return
        try:
            self._send(self._conversation.reply_line(line[1:].strip()) + b"\r\n")
        except EndlessChallenge as endless:
            self.close(str(endless).encode(), "BAD")


class AioImapSession(IMAP4_SSL):  # type: ignore[misc]  # untyped
    """An aioimaplib session that knows when it must be replaced."""

    #: Exchange ends the session (``BYE Session invalidated - AccessTokenExpired``) soon after this instant.
    reconnect_by: datetime

    async def authenticate(self, conversation: Conversation) -> Response:
        """Log in, and learn what the server can do for users; some say so only then."""
        protocol = self.protocol
        command = _Authenticate(protocol.new_tag(), protocol.transport.write, conversation)
        response = await protocol.execute(command)
        if response.result == "OK":
            async with protocol.state_condition:
                protocol.state = AUTH
                protocol.state_condition.notify_all()
            await protocol.capability()
        return response

    def drop(self) -> None:
        """Close the connection without a word; harmless if it is closed."""
        if self.protocol.transport is not None:
            self.protocol.transport.abort()


@asynccontextmanager
async def open_imap(
    source: AsyncTokenSource,
    email: str,
    *,
    user: str | None = None,
    min_ttl: float | None = None,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - handed to the library
    ssl_context: SSLContext | None = None,
) -> AsyncIterator[AioImapSession]:
    """As worker.mail.open_imap, with the methods of aioimaplib."""
    wish = Wish(email=email, user=user, min_ttl=min_ttl, timeout=timeout, tls=ssl_context)
    session = await run_async(log_in(source, wish, _connect))
    with ExitStack() as ending:
        ending.callback(session.drop)
        yield session
        if session.get_state() != LOGOUT:
            with suppress(AioImapException, OSError):
                await session.logout()


async def _connect(login: Login) -> AioImapSession:
    host = login.servers.imap_host
    conversation = login.conversation()
    session = AioImapSession(host, login.servers.imap_port, timeout=login.timeout, ssl_context=login.tls)
    with ExitStack() as undo:
        undo.callback(session.drop)
        with reaching(host, AioImapException):
            await session.wait_hello_from_server()
            async with asyncio.timeout(login.timeout):
                response = await session.authenticate(conversation)
                if response.result == "OK":
                    # Exchange says only to the first command whether the mailbox can be opened, too.
                    response = await session.list('""', '""')
        if response.result != "OK":
            text = response.lines[-1].decode(errors="replace")
            raise refused(login, host, Answer(response.result, text), conversation)
        session.reconnect_by = login.reconnect_by(utcnow())
        undo.pop_all()
    return session
