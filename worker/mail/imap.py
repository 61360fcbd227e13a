"""IMAP over the standard library."""

import imaplib
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, ClassVar

from worker.mail.answers import Answer, MailProtocol
from worker.mail.doors import Door
from worker.mail.login import LITERAL_BYTES, LOGIN_BYTES, Login
from worker.mail.xoauth2 import MECHANISM, Conversation


class ImapSession(imaplib.IMAP4_SSL):
    """An imaplib session that knows when it must be replaced."""

    mail_protocol: ClassVar[MailProtocol] = MailProtocol.IMAP
    errors: ClassVar[tuple[type[Exception], ...]] = (imaplib.IMAP4.error,)

    #: Exchange ends the session (``BYE Session invalidated - AccessTokenExpired``) soon after this instant.
    reconnect_by: datetime

    def __init__(self, login: Login, connection: socket.socket) -> None:
        self._connection, self._tls = connection, login.tls
        self._budget: int | None = LOGIN_BYTES  # None: logged in
        self._last: tuple[str, list[Any]] = ("", [])  # status and lines of the last command that was answered
        super().__init__(login.host, login.port, ssl_context=login.tls, timeout=login.timeout)

    def _create_socket(self, timeout: float | None) -> socket.socket:  # noqa: ARG002 - imaplib's signature
        return self._tls.wrap_socket(self._connection, server_hostname=self.host)

    def read(self, size: int) -> bytes:
        """As imaplib's, which would take a literal of any announced size into memory."""
        self._spend(size)
        return super().read(size)

    def readline(self) -> bytes:
        """As imaplib's, and during a login only so many."""
        line = super().readline()
        self._spend(len(line))
        return line

    def log_in(self, conversation: Conversation) -> Answer | None:
        """None, or the server's no."""
        debug, self.debug = self.debug, 0  # a server's words during a login may hold a token
        try:
            self._authenticate(conversation)
            # Exchange says only to the first command whether the mailbox can be opened, too.
            if self.state == "AUTH":
                self.list('""', '""')
        except imaplib.IMAP4.error as error:
            if isinstance(error, imaplib.IMAP4.abort) and (farewell := self.untagged_responses.get("BYE")):
                return conversation.answer("BYE", _text(farewell))
            if self._last[0] == "OK":  # it is no answer that was raised
                raise
        finally:
            self.debug = debug
        self._budget = None
        status, lines = self._last
        return None if status == "OK" else conversation.answer(status, _text(lines))

    def leave(self) -> None:
        """Log out, unless that was done."""
        if self.state != "LOGOUT":
            with suppress(imaplib.IMAP4.error, OSError):
                self.logout()

    def drop(self) -> None:
        """Close the connection without a word; harmless if it is closed."""
        with suppress(OSError):
            self.shutdown()

    def _authenticate(self, conversation: Conversation) -> None:
        """As imaplib's authenticate(), which gives up when a challenge is no base64."""
        self.literal = conversation.reply_line  # type: ignore[assignment]  # imaplib calls it
        status, _ = self._simple_command("AUTHENTICATE", MECHANISM)
        if status == "OK":
            conversation.accepted()
            self.state = "AUTH"

    def _spend(self, size: int) -> None:
        if size > (LITERAL_BYTES if self._budget is None else self._budget):
            raise self.abort(f"the server sends more than is taken: {size} bytes")
        if self._budget is not None:
            self._budget -= size

    def _get_tagged_response(self, tag: bytes, expect_bye: bool = False) -> Any:  # noqa: FBT001, FBT002 - theirs
        self._last = super()._get_tagged_response(tag, expect_bye)  # type: ignore[misc]  # imaplib raises BAD as a text
        return self._last


open_imap = Door(ImapSession)
"""Sessions of imaplib; see Door for arguments and errors."""


def _text(lines: Sequence[Any]) -> str:
    return b" ".join(line for line in lines if isinstance(line, bytes)).decode(errors="replace")
