"""POP over the standard library, which knows no SASL: AUTH in two lines, as Exchange wants it."""

import poplib
import socket
from datetime import datetime
from typing import ClassVar

from worker.mail.answers import Answer, MailProtocol
from worker.mail.doors import Door
from worker.mail.login import Login
from worker.mail.xoauth2 import MECHANISM, Conversation


class PopSession(poplib.POP3_SSL):
    """A poplib session that knows XOAUTH2, and when it must be replaced. poplib bounds the lines that it takes."""

    mail_protocol: ClassVar[MailProtocol] = MailProtocol.POP
    errors: ClassVar[tuple[type[Exception], ...]] = (poplib.error_proto,)

    #: The server may end the session soon after this instant.
    reconnect_by: datetime

    def __init__(self, login: Login, connection: socket.socket) -> None:
        self._connection, self._tls = connection, login.tls
        try:
            super().__init__(login.host, login.port, timeout=login.timeout, context=login.tls)
        except BaseException:
            # poplib leaves the connection open when it does not understand the greeting.
            if hasattr(self, "file"):
                self.close()
            raise

    def _create_socket(self, timeout: float) -> socket.socket:  # noqa: ARG002 - poplib's signature
        return self._tls.wrap_socket(self._connection, server_hostname=self.host)

    def log_in(self, conversation: Conversation) -> Answer | None:
        """None, or the server's no."""
        line = self._say(f"AUTH {MECHANISM}".encode())
        while line.startswith(b"+") and not line.startswith(b"+OK"):
            line = self._say(conversation.reply_line(line[1:].strip()))
        if line.startswith(b"+OK"):
            return None
        if not line.startswith(b"-ERR"):
            raise poplib.error_proto(line)
        return conversation.answer("-ERR", line.removeprefix(b"-ERR").strip().decode(errors="replace"))

    def leave(self) -> None:
        """QUIT, which commits deletions, unless that was done. Raises poplib's errors if it fails."""
        if self.sock is not None:
            self.quit()

    def drop(self) -> None:
        """Close the connection without a word; harmless if it is closed."""
        self.close()

    def _say(self, line: bytes) -> bytes:
        self._putline(line)  # type: ignore[attr-defined]
        answer, _ = self._getline()  # type: ignore[attr-defined]
        return bytes(answer)


open_pop = Door(PopSession)
"""Sessions of poplib; see Door for arguments and errors. Deletions happen only if the block ends well."""
