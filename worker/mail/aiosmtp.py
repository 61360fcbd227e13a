"""SMTP submission over aiosmtplib, whose own auth_xoauth2() sends lines too long for some servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import datetime
from ssl import SSLContext

from aiosmtplib import SMTP, SMTPException, SMTPStatus

from worker.clock import utcnow
from worker.mail.login import TIMEOUT, Login, Wish, log_in, reaching, refused, run_async
from worker.mail.refusal import Answer
from worker.mail.source import AsyncTokenSource
from worker.mail.xoauth2 import MECHANISM, Conversation, EndlessChallenge


class AioSmtpSession(SMTP):
    """An aiosmtplib session that knows when it must be replaced."""

    #: The server may end the session soon after this instant.
    reconnect_by: datetime

    async def authenticate(self, conversation: Conversation) -> Answer | None:
        """None if the server takes the token, else how it refuses."""
        response = await self.execute_command(b"AUTH", MECHANISM.encode())
        while response.code == SMTPStatus.auth_continue:
            response = await self.execute_command(conversation.reply_line(response.message.encode()))
        if response.code == SMTPStatus.auth_successful:
            return None
        return Answer(str(int(response.code)), response.message)

    def drop(self) -> None:
        """Close the connection without a word, and without waiting for one; harmless if it is closed."""
        transport = self.transport
        self.close()
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()


@asynccontextmanager
async def open_smtp(
    source: AsyncTokenSource,
    email: str,
    *,
    user: str | None = None,
    min_ttl: float | None = None,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - handed to the library
    ssl_context: SSLContext | None = None,
) -> AsyncIterator[AioSmtpSession]:
    """As worker.mail.open_smtp, with the methods of aiosmtplib."""
    wish = Wish(email=email, user=user, min_ttl=min_ttl, timeout=timeout, tls=ssl_context)
    session = await run_async(log_in(source, wish, _connect))
    with ExitStack() as ending:
        ending.callback(session.drop)
        yield session
        with suppress(SMTPException, OSError):
            # Their quit() also closes, politely: that goes on after us, and is cut off if the loop ends.
            await session.execute_command(b"QUIT")


async def _connect(login: Login) -> AioSmtpSession:
    host, port = login.servers.smtp_host, login.servers.smtp_port
    conversation = login.conversation()
    session = AioSmtpSession(hostname=host, port=port, timeout=login.timeout, start_tls=True, tls_context=login.tls)
    with ExitStack() as undo:
        undo.callback(session.drop)
        with reaching(host, SMTPException, EndlessChallenge):
            await session.connect()
            await session.ehlo()
            refusal = await session.authenticate(conversation)
        if refusal:
            raise refused(login, host, refusal, conversation)
        session.reconnect_by = login.reconnect_by(utcnow())
        undo.pop_all()
    return session
