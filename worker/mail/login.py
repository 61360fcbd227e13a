"""One login, for any protocol and library: a token, a connection, and another one where that may help.

The procedure is written once, as a generator of steps; `run` takes them, `run_async` awaits them.
"""

import ssl
from collections.abc import Awaitable, Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any, TypedDict, TypeVar

from worker.domain.account import MailServers
from worker.domain.cache_entry import MailAccount
from worker.domain.errors import AccountInactive, TokenRefused, WorkerError
from worker.domain.host_names import is_host_name
from worker.domain.mail_hosts import MailHostNotAllowed, is_mail_host
from worker.domain.proxy import DIRECT, Proxy, ProxyRules
from worker.domain.token import AccessToken
from worker.mail.answers import Answer, MailProtocol, Verdict
from worker.mail.deadline import Deadline
from worker.mail.errors import LoginRejected, MailboxNotConnected, MailboxRefused, MailUnavailable
from worker.mail.source import AsyncTokenSource, ProxiedSource, TokenSource
from worker.mail.xoauth2 import Conversation, EndlessChallenge

S = TypeVar("S")

TIMEOUT = 60.0  # seconds; Exchange has been seen to take 30 for its answer to a token (Webklex/php-imap#213)
LOGIN_BYTES = 256 * 1024  # that a server may send during a login; Exchange sends less than 2 KiB
LITERAL_BYTES = 256 * 1024 * 1024  # of one message; Exchange Online's limit is 150 MB, a third more in base64
_PAUSES = (1.0, 3.0)  # seconds before a mailbox that was not connected is tried again; more often makes it worse
_PORTS = range(1, 65536)
_MARGIN = timedelta(minutes=1)
_MARGIN_SHARE = 10  # of a short remaining life: one tenth


class LoginOptions(TypedDict, total=False):
    """The options of a login."""

    #: A shared mailbox that the account's user may open; None: the account's own.
    user: str | None
    #: Seconds that the token must still live, if one can be had; None: as in TokenClient.get.
    min_ttl: float | None
    #: Seconds for the whole login with one token, connections and pauses included; afterwards for each answer.
    timeout: float
    #: None: the system's certificate authorities.
    ssl_context: ssl.SSLContext | None
    #: Hosts that may receive the token; without it, the source's, which are Microsoft's and WORKER_MAIL_HOSTS.
    mail_hosts: Collection[str]
    #: The proxy and its exceptions; without it, the source's, which are those of WORKER_PROXY or HTTPS_PROXY.
    proxies: ProxyRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """One token and where it goes; ``timeout`` is in seconds."""

    protocol: MailProtocol
    email: str
    user: str
    host: str
    port: int
    token: AccessToken
    tls: ssl.SSLContext
    timeout: float
    deadline: Deadline
    proxy: Proxy | None = None
    turned: bool = False  # the address family that the system prefers comes last

    def with_token(self, token: AccessToken) -> "Login":
        """The next login: with another token, and all its time."""
        return replace(self, token=token, deadline=Deadline(self.timeout))

    def conversation(self) -> Conversation:
        return Conversation(self.protocol, self.user, self.token.secret)

    def reconnect_by(self, now: datetime) -> datetime:
        """When to leave and come back with another token: a minute before this one ends, later if it ends soon.

        Never before ``now``, so that a caller does not go in circles on an account that cannot be refreshed.
        """
        left = max(self.token.ttl(now), timedelta(0))
        return now + left - min(_MARGIN, left / _MARGIN_SHARE)


class TokenRejected(Exception):
    """The server judged the token and rejected it; ``said`` is fit to be shown."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


@dataclass(frozen=True, slots=True)
class Means:
    """How a door goes about it: ``attempt`` opens a session, or raises and leaves nothing open; ``pause`` sleeps."""

    protocol: MailProtocol
    attempt: Callable[[Login], Any]
    pause: Callable[[float], Any]


Step = Callable[[], Any]
Procedure = Generator[Step, Any, S]


def log_in(source: TokenSource | AsyncTokenSource, email: str, options: LoginOptions, means: Means) -> Procedure[Any]:
    """The steps to a session.

    Raises what the source raises; LoginRejected, MailboxRefused, MailboxNotConnected or MailUnavailable;
    MailHostNotAllowed; InvalidInput for a malformed ``user``.
    """
    account = yield partial(source.load, email, min_ttl=options.get("min_ttl"))
    login = _prepared(
        account, {"mail_hosts": source.mail_hosts, "proxies": _proxies(source), **options}, means.protocol
    )
    try:
        return (yield from _connected(login, means))
    except TokenRejected as rejection:
        newer = yield from _reported(source, login, rejection)
    try:
        return (yield from _connected(login.with_token(newer), means))
    except TokenRejected as rejection:
        raise LoginRejected(login.email, rejection.said) from rejection


def _proxies(source: TokenSource | AsyncTokenSource) -> ProxyRules:
    return source.proxies if isinstance(source, ProxiedSource) else DIRECT


def _prepared(account: MailAccount, options: LoginOptions, protocol: MailProtocol) -> Login:
    if account.token is None:
        raise AccountInactive(account.email, "not using OAuth")
    host, port = _address(account.servers, protocol)
    if not is_host_name(host) or port not in _PORTS:
        raise MailUnavailable(ascii(host)[1:80], f"not a host name and port: {ascii(host)[:80]}, {port}")
    if not is_mail_host(host, options["mail_hosts"]):
        raise MailHostNotAllowed(host)
    timeout = options.get("timeout", TIMEOUT)
    return Login(
        protocol=protocol,
        email=account.email,
        user=options.get("user") or account.login_name,
        host=host,
        port=port,
        token=account.token,
        tls=options.get("ssl_context") or default_tls(),
        timeout=timeout,
        deadline=Deadline(timeout),
        proxy=options["proxies"].for_host(host),
    )


def _address(servers: MailServers, protocol: MailProtocol) -> tuple[str, int]:
    addresses = {
        MailProtocol.IMAP: (servers.imap_host, servers.imap_port),
        MailProtocol.POP: (servers.pop_host, servers.pop_port),
        MailProtocol.SMTP: (servers.smtp_host, servers.smtp_port),
    }
    return addresses[protocol]


def _connected(login: Login, means: Means) -> Procedure[Any]:
    """A session, at once or, while the server cannot connect the mailbox, after a pause.

    Exchange has failed so over IPv6 only, for days (davmail#261, thunderbird-android#9635), so the family changes, too.
    """
    for seconds in _PAUSES:
        try:
            return (yield partial(means.attempt, login))
        except MailboxNotConnected:
            if login.deadline.left <= seconds:
                raise
        yield partial(means.pause, seconds)
        login = replace(login, turned=not login.turned)
    return (yield partial(means.attempt, login))


def _reported(source: TokenSource | AsyncTokenSource, login: Login, rejection: TokenRejected) -> Procedure[AccessToken]:
    """A newer token. An error that keeps the source from getting one is raised along with the server's words."""
    try:
        newer = yield partial(source.report_rejected, login.email, login.token.version)
    except TokenRefused as error:
        raise LoginRejected(login.email, rejection.said, error.retry_after) from rejection
    except WorkerError as error:
        error.add_note(f"The mail server said: {rejection.said}")
        raise
    return newer  # type: ignore[no-any-return]


def run(procedure: Procedure[S]) -> S:
    try:
        step = next(procedure)
        while True:
            try:
                result = step()
            except (WorkerError, TokenRejected) as error:
                step = procedure.throw(error)
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
            except (WorkerError, TokenRejected) as error:
                step = procedure.throw(error)
            else:
                step = procedure.send(result)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


@contextmanager
def translating(login: Login, conversation: Conversation, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """During a login: a failure without an answer is the server's or the network's."""
    expected: tuple[type[Exception], ...] = (OSError, ValueError, EndlessChallenge, *errors)
    try:
        yield
    except expected as error:
        late = isinstance(error, TimeoutError) or not login.deadline.left
        words = f"no complete answer within {login.timeout:g} seconds" if late else words_of(error)
        raise MailUnavailable(login.host, conversation.shown(words)) from None


def rejected(login: Login, answer: Answer) -> Exception:
    """The error for a server's refusal."""
    match answer.verdict:
        case Verdict.REJECTED:
            return TokenRejected(answer.words)
        case Verdict.MAILBOX:
            return MailboxRefused(login.email, answer.words)
        case Verdict.NOT_CONNECTED:
            return MailboxNotConnected(login.host, answer.words, answer.retry_after)
        case Verdict.UNAVAILABLE:
            return MailUnavailable(login.host, answer.words, answer.retry_after)


def words_of(error: Exception) -> str:
    """The words of a library's exception; some hold the bytes of the server."""
    if any(isinstance(each, bytes) for each in error.args):
        return " ".join(each.decode(errors="replace") if isinstance(each, bytes) else str(each) for each in error.args)
    return str(error) or type(error).__name__


@cache
def default_tls() -> ssl.SSLContext:
    """The system's certificate authorities, read once."""
    return ssl.create_default_context()
