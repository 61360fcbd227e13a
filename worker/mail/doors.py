"""A door is what opens sessions of one library: the same signature, clean-up and errors for all of them."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import datetime
from typing import ClassVar, Generic, Protocol, TypeVar, Unpack

from worker.clock import utcnow
from worker.mail.answers import Answer, MailProtocol
from worker.mail.connect import connect, connect_async
from worker.mail.deadline import cut_off
from worker.mail.login import Login, LoginOptions, Means, log_in, rejected, run, run_async, translating
from worker.mail.source import AsyncTokenSource, TokenSource
from worker.mail.xoauth2 import Conversation


class MailSession(Protocol):
    """A library's session: made over a connection, with TLS and the greeting read."""

    mail_protocol: ClassVar[MailProtocol]
    errors: ClassVar[tuple[type[Exception], ...]]  #: raised by the library, beside OSError and ValueError
    reconnect_by: datetime

    def __init__(self, login: Login, connection: socket.socket) -> None: ...

    def log_in(self, conversation: Conversation) -> Answer | None:
        """None, and the session has been seen to work; or how the server said no."""
        ...

    def leave(self) -> None:
        """Log out."""
        ...

    def drop(self) -> None:
        """Close the connection without a word; harmless if it is closed."""
        ...


class AsyncMailSession(Protocol):
    """The same for asyncio: the connection is used from ``begin`` on."""

    mail_protocol: ClassVar[MailProtocol]
    errors: ClassVar[tuple[type[Exception], ...]]
    reconnect_by: datetime

    def __init__(self, login: Login, connection: socket.socket) -> None: ...

    async def begin(self) -> None:
        """TLS and the greeting."""
        ...

    async def log_in(self, conversation: Conversation) -> Answer | None: ...

    async def leave(self) -> None: ...

    def drop(self) -> None: ...


S = TypeVar("S", bound=MailSession)
A = TypeVar("A", bound=AsyncMailSession)


class Door(Generic[S]):
    """Opens sessions of one kind.

    >>> with open_imap(client, "ann@contoso.com", min_ttl=900) as imap:  # doctest: +SKIP
    ...     imap.select("INBOX")
    """

    def __init__(self, kind: type[S]) -> None:
        self._kind = kind

    @contextmanager
    def __call__(self, source: TokenSource, email: str, **options: Unpack[LoginOptions]) -> Iterator[S]:
        """A session that is logged in and works; ended politely if the block ends well, closed on every path.

        Raises what ``source`` raises; LoginRejected after one forced refresh, MailboxRefused, MailUnavailable (of which
        MailboxNotConnected is one), MailHostNotAllowed, InvalidInput for a malformed ``user``.
        """
        session = run(log_in(source, email, options, Means(self._kind.mail_protocol, self._attempt, time.sleep)))
        with ExitStack() as ending:
            ending.callback(session.drop)
            yield session
            session.leave()

    def _attempt(self, login: Login) -> S:
        conversation = login.conversation()
        with translating(login, conversation, self._kind.errors):
            connection = connect(login.host, login.port, login.deadline, turned=login.turned, proxy=login.proxy)
            with cut_off(connection, login.deadline), ExitStack() as undo:
                undo.callback(connection.close)
                connection.settimeout(login.timeout)
                session = self._kind(login, connection)
                undo.callback(session.drop)
                if answer := session.log_in(conversation):
                    raise rejected(login, answer)
                undo.pop_all()
        session.reconnect_by = login.reconnect_by(utcnow())
        return session


class AsyncDoor(Generic[A]):
    """The same for asyncio."""

    def __init__(self, kind: type[A]) -> None:
        self._kind = kind

    @asynccontextmanager
    async def __call__(self, source: AsyncTokenSource, email: str, **options: Unpack[LoginOptions]) -> AsyncIterator[A]:
        """As Door, awaited."""
        means = Means(self._kind.mail_protocol, self._attempt, asyncio.sleep)
        session = await run_async(log_in(source, email, options, means))
        with ExitStack() as ending:
            ending.callback(session.drop)
            yield session
            await session.leave()

    async def _attempt(self, login: Login) -> A:
        conversation = login.conversation()
        with translating(login, conversation, self._kind.errors):
            async with asyncio.timeout(login.deadline.left):
                connection = await connect_async(login.host, login.port, turned=login.turned, proxy=login.proxy)
                session = self._kind(login, connection)
                with ExitStack() as undo:
                    undo.callback(session.drop)
                    await session.begin()
                    if answer := await session.log_in(conversation):
                        raise rejected(login, answer)
                    undo.pop_all()
        session.reconnect_by = login.reconnect_by(utcnow())
        return session
