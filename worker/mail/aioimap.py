"""IMAP over aioimaplib, with a login and an end of the connection that it lacks.

aioimaplib is kept because it is the only asyncio IMAP client on the index that is maintained (2.0.3 of October 2026):
others stopped between 2021 and 2024. This module corrects three of its faults. Its xoauth2() waits for ever on an error
challenge and logs the token in base64. A connection that ends leaves its commands and its IDLE waiting
(iroco-co/aioimaplib#83, #110, #128). It takes a line or a literal of any size, and a packet of a thousand lines exceeds
the interpreter's recursion limit.
"""

import asyncio
import logging
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, ClassVar

from aioimaplib import AUTH, IMAP4_SSL, LOGOUT, Abort, AioImapException, Command, IMAP4ClientProtocol, Response

from worker.mail.answers import Answer, MailProtocol
from worker.mail.doors import AsyncDoor
from worker.mail.login import LITERAL_BYTES, LOGIN_BYTES, Login
from worker.mail.words import MaskedLog, shown
from worker.mail.xoauth2 import MECHANISM, Conversation, EndlessChallenge

_LINE_BYTES = 1_000_000  # of one line: imaplib's limit
_PORTION = 64  # lines that aioimaplib is handed at a time: it recurses once per line
_LITERAL = re.compile(rb"\{(\d+)\}$")
_ENDED = [b"BYE"]  # in the queue of what was pushed: nothing more will come
_NOT_OURS = (AioImapException, ArithmeticError, LookupError, ValueError)  # raised by aioimaplib for malformed lines


logging.getLogger("aioimaplib.aioimaplib").addFilter(MaskedLog())


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


class _Protocol(IMAP4ClientProtocol):  # type: ignore[misc]  # untyped
    """aioimaplib's protocol, whose commands end when the connection does."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.pending_sync_command: Command | None
        self.greeted: asyncio.Future[None] = loop.create_future()
        self.farewell: bytes | None = None  # the words of the server's BYE
        self.budget: int | None = LOGIN_BYTES  # bytes; None: logged in
        self._end: str | None = None  # why nothing more will come

    def data_received(self, data: bytes) -> None:
        try:
            if self.budget is not None:
                self._check(len(data), self.budget)
                self.budget -= len(data)
            for portion in _portions(data):
                super().data_received(portion)
            self._check(len(self.incomplete_line), _LINE_BYTES)
        except _NOT_OURS as error:
            self.end(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.end(str(exc or "the server closed the connection"))

    def end(self, reason: str) -> None:
        """End the connection, and every command that waits for an answer."""
        if self._end is not None:
            return
        self._end = shown(self.farewell.decode(errors="replace") if self.farewell else reason)
        self.state = LOGOUT
        waiting: list[Command | None] = [self.pending_sync_command, *self.pending_async_commands.values()]
        self.pending_sync_command = None
        self.pending_async_commands.clear()
        for command in filter(None, waiting):
            command.close(self._end.encode(), "BYE")
        self.idle_queue.put_nowait(_ENDED)
        if not self.greeted.done():
            self.greeted.set_exception(self.ended())
            self.greeted.exception()  # it may be that nothing waits for it
        if self.transport is not None:
            self.transport.abort()

    def ended(self) -> Abort:
        """To be raised by what needs the connection."""
        return Abort(f"the connection has ended: {self._end}")

    async def execute(self, command: Command, scrub: str | None = None) -> Response:
        """As aioimaplib's. Raises Abort if the connection ends, except that an IDLE ends with a result of BYE."""
        if self._end is not None:
            raise self.ended()
        response = await super().execute(command, scrub)
        if self._end is not None and response.result == "BYE" and command.name != "IDLE":
            raise self.ended()
        return response

    def send(self, line: str, scrub: str | None = None) -> None:
        """As aioimaplib's. Raises Abort if the connection has ended."""
        if self._end is not None:
            raise self.ended()
        super().send(line, scrub)

    async def welcome(self, command: bytes) -> None:
        """The greeting, and then CAPABILITY: the session may be used after it, or is ended."""
        try:
            await super().welcome(command)
        except _NOT_OURS as error:
            self.end(str(error))
        if not self.greeted.done():
            self.greeted.set_result(None)

    def _handle_line(self, line: bytes, current_cmd: Command | None) -> Any:
        if announced := _LITERAL.search(line):
            self._check(int(announced[1]), LITERAL_BYTES if self.budget is None else self.budget)
        command = super()._handle_line(line, current_cmd)
        if current_cmd is None and line[:5].upper() == b"* BYE" and not self._is_logging_out():
            self.farewell = line[5:].strip()
            self.end("BYE")
        return command

    def _is_logging_out(self) -> bool:
        return self.pending_sync_command is not None and self.pending_sync_command.name == "LOGOUT"

    def _check(self, size: int, limit: int) -> None:
        if size > limit:
            raise Abort(f"the server sends more than is taken: {size} bytes")


class AioImapSession(IMAP4_SSL):  # type: ignore[misc]  # untyped
    """An aioimaplib session that knows when it must be replaced.

    Its methods raise Abort after the connection has ended.
    """

    protocol: _Protocol
    mail_protocol: ClassVar[MailProtocol] = MailProtocol.IMAP
    errors: ClassVar[tuple[type[Exception], ...]] = (AioImapException,)

    #: Exchange ends the session (``BYE Session invalidated - AccessTokenExpired``) soon after this instant.
    reconnect_by: datetime

    def __init__(self, login: Login, connection: socket.socket) -> None:
        self._login = login
        self._unused: socket.socket | None = connection  # None: the transport's
        super().__init__(login.host, login.port, timeout=login.timeout, ssl_context=login.tls)

    def create_client(self, *_: Any) -> None:
        """No connection of aioimaplib's own."""
        self.protocol = _Protocol(asyncio.get_running_loop())

    async def begin(self) -> None:
        """TLS, the greeting and CAPABILITY."""
        connection, self._unused = self._unused, None
        await asyncio.get_running_loop().create_connection(
            lambda: self.protocol, sock=connection, ssl=self._login.tls, server_hostname=self.host
        )
        await self.protocol.greeted

    async def log_in(self, conversation: Conversation) -> Answer | None:
        """None, or the server's no."""
        try:
            response = await self._authenticate(conversation)
            if response.result == "OK":
                # Exchange says only to the first command whether the mailbox can be opened, too.
                response = await self.list('""', '""')
        except AioImapException:
            if self.protocol.farewell is None:
                raise
            return conversation.answer("BYE", self.protocol.farewell.decode(errors="replace"))
        if response.result != "OK":
            return conversation.answer(response.result, response.lines[-1].decode(errors="replace"))
        self.protocol.budget = None
        return None

    async def wait_server_push(self, *args: Any, **options: Any) -> Any:
        """As aioimaplib's. Raises Abort once the connection has ended and everything that was pushed has been read."""
        pushed = await super().wait_server_push(*args, **options)
        if pushed is _ENDED:
            self.protocol.idle_queue.put_nowait(_ENDED)
            raise self.protocol.ended()
        return pushed

    async def leave(self) -> None:
        """Log out, unless that was done."""
        if self.get_state() != LOGOUT:
            with suppress(AioImapException, OSError):
                await self.logout()

    def drop(self) -> None:
        """Close the connection without a word; harmless if it is closed."""
        if self._unused:
            self._unused.close()
        self.protocol.end("closed by this side")

    async def _authenticate(self, conversation: Conversation) -> Response:
        """Log in, and learn what the server can do for users; some say so only then."""
        protocol = self.protocol
        response = await protocol.execute(_Authenticate(protocol.new_tag(), protocol.transport.write, conversation))
        if response.result == "OK":
            conversation.accepted()
            async with protocol.state_condition:
                protocol.state = AUTH
                protocol.state_condition.notify_all()
            await protocol.capability()
        return response


open_imap = AsyncDoor(AioImapSession)
"""Sessions of aioimaplib; see worker.mail.doors.Door for arguments and errors."""


def _portions(data: bytes) -> Iterator[bytes]:
    lines = data.splitlines(keepends=True)
    for start in range(0, len(lines), _PORTION):
        yield b"".join(lines[start : start + _PORTION])
