"""SMTP submission over the standard library: STARTTLS, then AUTH."""

import smtplib
import socket
from contextlib import suppress
from datetime import datetime
from typing import Any, BinaryIO, ClassVar

from worker.mail.answers import Answer, MailProtocol
from worker.mail.doors import Door
from worker.mail.login import LOGIN_BYTES, Login
from worker.mail.xoauth2 import MECHANISM, Conversation

#: In EHLO. The name of this machine is of no use to a submission server, and looking it up may take seconds.
EHLO_NAME = "[127.0.0.1]"
_READY, _ACCEPTED, _CHALLENGE = 220, 235, 334  # RFC 5321, RFC 4954
_REPLY_BYTES = LOGIN_BYTES  # of one reply, whose lines smtplib bounds and whose number it does not


class SmtpSession(smtplib.SMTP):
    """A smtplib session that knows when it must be replaced."""

    mail_protocol: ClassVar[MailProtocol] = MailProtocol.SMTP
    errors: ClassVar[tuple[type[Exception], ...]] = ()  # smtplib's are OSErrors
    debuglevel = 0  # although smtplib.SMTP's may be set: it would print the token

    #: The server may end the session soon after this instant.
    reconnect_by: datetime

    _reader: "_Reader | None" = None

    def __init__(self, login: Login, connection: socket.socket) -> None:
        super().__init__(local_hostname=EHLO_NAME, timeout=login.timeout)
        self._connection, self._host = connection, login.host
        try:
            self._begin(login)
        except BaseException:
            self.close()
            raise

    @property
    def file(self) -> "_Reader | None":
        """The file that smtplib reads from."""
        return self._reader

    @file.setter
    def file(self, file: BinaryIO | None) -> None:
        self._reader = _Reader(file) if file else None

    def _begin(self, login: Login) -> None:
        """The greeting and TLS; raises unless the server offers it."""
        code, words = self.connect(login.host, login.port)
        if code != _READY:
            raise smtplib.SMTPConnectError(code, words)
        self.starttls(context=login.tls)
        self.ehlo()

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # noqa: ARG002 - smtplib's signature
        return self._connection

    def log_in(self, conversation: Conversation) -> Answer | None:
        """None, or the server's no."""
        code, words = self.docmd("AUTH", MECHANISM)
        while code == _CHALLENGE:
            code, words = self.docmd(conversation.reply_line(words).decode())
        return None if code == _ACCEPTED else conversation.answer(str(code), words.decode(errors="replace"))

    def send(self, s: Any) -> None:
        """As smtplib's; what comes next is another reply."""
        if self._reader:
            self._reader.left = _REPLY_BYTES
        super().send(s)

    def leave(self) -> None:
        """QUIT, unless that was done."""
        with suppress(smtplib.SMTPException, OSError):
            self.quit()

    def drop(self) -> None:
        """Close the connection without a word; harmless if it is closed."""
        self.close()


class _Reader:
    """A file for smtplib that ends a reply without end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.left = _REPLY_BYTES
        self.close = file.close

    def readline(self, limit: int) -> bytes:
        line = self._file.readline(limit)
        self.left -= len(line)
        if self.left < 0:
            raise OSError("the server sends more than is taken")
        return line


open_smtp = Door(SmtpSession)
"""Sessions of smtplib, for send_message; see Door for arguments and errors."""
