"""SMTP submission over aiosmtplib, whose own auth_xoauth2() sends lines too long for some servers."""

import asyncio
import socket
from contextlib import suppress
from datetime import datetime
from typing import ClassVar

from aiosmtplib import SMTP, SMTPException, SMTPStatus

from worker.mail.answers import Answer, MailProtocol
from worker.mail.doors import AsyncDoor
from worker.mail.login import Login
from worker.mail.smtp import EHLO_NAME
from worker.mail.xoauth2 import MECHANISM, Conversation


class AioSmtpSession(SMTP):
    """An aiosmtplib session that knows when it must be replaced."""

    mail_protocol: ClassVar[MailProtocol] = MailProtocol.SMTP
    errors: ClassVar[tuple[type[Exception], ...]] = (SMTPException,)

    #: The server may end the session soon after this instant.
    reconnect_by: datetime

    def __init__(self, login: Login, connection: socket.socket) -> None:
        self._unused: socket.socket | None = connection  # None: the transport's
        super().__init__(
            hostname=login.host,
            sock=connection,
            timeout=login.timeout,
            local_hostname=EHLO_NAME,
            start_tls=True,
            tls_context=login.tls,
        )

    async def begin(self) -> None:
        """The greeting and TLS; raises unless the server offers it."""
        self._unused = None
        await self.connect()
        await self.ehlo()

    async def log_in(self, conversation: Conversation) -> Answer | None:
        """None, or the server's no."""
        response = await self.execute_command(b"AUTH", MECHANISM.encode())
        while response.code == SMTPStatus.auth_continue:
            response = await self.execute_command(conversation.reply_line(response.message.encode()))
        if response.code == SMTPStatus.auth_successful:
            return None
        return conversation.answer(str(int(response.code)), response.message)

    async def leave(self) -> None:
        """QUIT, unless that was done. Their quit() also closes, politely: that would go on after us."""
        with suppress(SMTPException, OSError):
            await self.execute_command(b"QUIT")

    def drop(self) -> None:
        """Close the connection without a word, and without waiting for one; harmless if it is closed."""
        transport = self.transport
        self.close()
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()
        if self._unused:
            self._unused.close()


open_smtp = AsyncDoor(AioSmtpSession)
"""Sessions of aiosmtplib; see worker.mail.doors.Door for arguments and errors."""
