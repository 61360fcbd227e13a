"""IMAP over IMAPClient: needs the extra `imapclient`."""

import logging
import socket
from contextlib import suppress
from datetime import datetime
from typing import ClassVar

from worker.mail.answers import Answer, MailProtocol
from worker.mail.doors import Door
from worker.mail.imap import ImapSession
from worker.mail.login import Login
from worker.mail.words import MaskedLog
from worker.mail.xoauth2 import Conversation

try:
    from imapclient import IMAPClient
    from imapclient.exceptions import IMAPClientError
except ModuleNotFoundError as missing:
    message = f"{missing.name} is not installed: pip install 'token-refresh-worker[imapclient]'"
    raise ImportError(message) from None

logging.getLogger("imapclient.imaplib").addFilter(MaskedLog())


class ImapClientSession(IMAPClient):  # type: ignore[misc]  # untyped
    """An IMAPClient that knows when it must be replaced. It is built on imaplib, so the login is ImapSession's."""

    mail_protocol: ClassVar[MailProtocol] = MailProtocol.IMAP
    errors: ClassVar[tuple[type[Exception], ...]] = (IMAPClientError,)

    #: Exchange ends the session (``BYE Session invalidated - AccessTokenExpired``) soon after this instant.
    reconnect_by: datetime

    def __init__(self, login: Login, connection: socket.socket) -> None:
        self._session = ImapSession(login, connection)
        super().__init__(login.host, login.port, ssl=True, ssl_context=login.tls, timeout=login.timeout)

    def _create_IMAP4(self) -> ImapSession:  # noqa: N802 - IMAPClient's name
        return self._session

    def log_in(self, conversation: Conversation) -> Answer | None:
        """None, or the server's no."""
        return self._session.log_in(conversation)

    def leave(self) -> None:
        """Log out, unless that was done."""
        with suppress(IMAPClientError, OSError):
            self.logout()

    def drop(self) -> None:
        """Close the connection without a word; harmless if it is closed."""
        self._session.drop()


open_imap = Door(ImapClientSession)
"""Sessions of IMAPClient; see worker.mail.doors.Door for arguments and errors."""
