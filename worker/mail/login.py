"""One login, whatever the protocol and the library: a token, one attempt, and one more if the token was refused.

The procedure is written once, as a generator of steps; `run` takes them, `run_async` awaits them.
"""

import ssl
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any, TypeVar

from worker.domain.account import MailServers
from worker.domain.errors import AccountInactive, TokenRefused
from worker.domain.token import AccessToken
from worker.mail.errors import MailboxRefused, MailUnavailable
from worker.mail.refusal import Answer, Refusal
from worker.mail.source import AsyncTokenSource, TokenSource
from worker.mail.xoauth2 import Conversation, EndlessChallenge

S = TypeVar("S")

TIMEOUT = 30.0  # seconds, for connecting and for each answer
_MARGIN = timedelta(minutes=1)
_MARGIN_SHARE = 10  # of a short remaining life: one tenth


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a caller asks for; ``timeout`` and ``min_ttl`` are seconds."""

    email: str
    user: str | None
    min_ttl: float | None
    timeout: float
    tls: ssl.SSLContext | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """One attempt."""

    email: str
    user: str
    servers: MailServers
    token: AccessToken
    timeout: float
    tls: ssl.SSLContext

    def conversation(self) -> Conversation:
        return Conversation(self.user, self.token.secret)

    def reconnect_by(self, now: datetime) -> datetime:
        """When to leave and come back with another token: a minute before this one ends, later if it ends soon.

        Never before ``now``, so that nobody goes in circles on the last token of an account that cannot be refreshed.
        """
        left = max(self.token.ttl(now), timedelta(0))
        return now + left - min(_MARGIN, left / _MARGIN_SHARE)


class TokenRejected(Exception):
    """The server took the token for a bad one; its words are safe to show."""


Step = Callable[[], Any]
Procedure = Generator[Step, Any, S]


def log_in(source: TokenSource | AsyncTokenSource, wish: Wish, attempt: Callable[[Login], Any]) -> Procedure[Any]:
    """The steps to a session, which ``attempt`` opens or else raises and leaves nothing open.

    Raises what the source raises; TokenRefused, MailboxRefused or MailUnavailable; InvalidInput for an odd ``user``.
    """
    account = yield partial(source.load, wish.email, min_ttl=wish.min_ttl)
    if account.token is None:
        raise AccountInactive(account.email, "not using OAuth")
    login = Login(
        email=account.email,
        user=wish.user or account.email,
        servers=account.servers,
        token=account.token,
        timeout=wish.timeout,
        tls=wish.tls or default_tls(),
    )
    try:
        return (yield partial(attempt, login))
    except TokenRejected:
        pass
    newer = yield partial(source.report_rejected, account.email, login.token.version)
    try:
        return (yield partial(attempt, replace(login, token=newer)))
    except TokenRejected as rejection:
        raise TokenRefused(account.email) from rejection


def run(procedure: Procedure[S]) -> S:
    try:
        step = next(procedure)
        while True:
            try:
                result = step()
            except TokenRejected as rejection:
                step = procedure.throw(rejection)
            else:
                step = procedure.send(result)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


async def run_async(procedure: Generator[Callable[[], Awaitable[Any]], Any, S]) -> S:
    try:
        step = next(procedure)
        while True:
            try:
                result = await step()
            except TokenRejected as rejection:
                step = procedure.throw(rejection)
            else:
                step = procedure.send(result)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


@contextmanager
def reaching(host: str, *errors: type[Exception]) -> Iterator[None]:
    """Up to the greeting and TLS: whatever goes wrong is the server's trouble or the network's."""
    expected: tuple[type[Exception], ...] = (OSError, *errors)
    try:
        yield
    except expected as error:
        raise MailUnavailable(host, Answer("", _words(error)).quoted) from None


@contextmanager
def understanding(
    login: Login,
    host: str,
    conversation: Conversation,
    answer: Callable[[Exception], Answer | None],
    *errors: type[Exception],
) -> Iterator[None]:
    """While logging in: ``answer`` tells how the server refused, or None if it went without an answer."""
    expected: tuple[type[Exception], ...] = (OSError, ValueError, EndlessChallenge, *errors)
    try:
        yield
    except expected as error:
        said = answer(error)
        if said is None:
            raise MailUnavailable(host, Answer("", _words(error)).quoted) from None
        raise refused(login, host, said, conversation) from None


def refused(login: Login, host: str, said: Answer, conversation: Conversation) -> Exception:
    words = said.quoted + (f" ({conversation.complaint})" if conversation.complaint else "")
    match said.refusal:
        case Refusal.TOKEN:
            return TokenRejected(words)
        case Refusal.MAILBOX:
            return MailboxRefused(login.email, words)
        case Refusal.LATER:
            return MailUnavailable(host, words, said.retry_after)


@cache
def default_tls() -> ssl.SSLContext:
    """The system's certificate authorities, read once."""
    return ssl.create_default_context()


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
