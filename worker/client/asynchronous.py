"""AsyncTokenClient: TokenClient for asyncio. Tokens in memory are returned at once; other calls run in threads."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from worker import clock
from worker.client.blocking import TokenClient
from worker.domain.account import DEFAULT_CLIENT, MailServers
from worker.domain.cache_entry import MailAccount
from worker.domain.errors import ClientClosed, WorkerError
from worker.domain.proxy import ProxyRules
from worker.domain.token import AccessToken
from worker.service.accounts.watch import AttentionNeeded
from worker.settings import ReaderSettings, Settings, load_consumer

_THREADS = 8  # blocking calls at a time; a ninth waits, reads from memory do not

P = ParamSpec("P")
T = TypeVar("T")


class AsyncTokenClient:
    """The methods of TokenClient, to be awaited. They take the same arguments and raise the same errors.

    Make one for all tasks of a process, and close it at the end; then every method raises ClientClosed. Use it in one
    event loop. After a fork the child opens connections of its own.
    """

    def __init__(self, settings: Settings | ReaderSettings, *, utcnow: Callable[[], datetime] = clock.utcnow) -> None:
        self._client = TokenClient(settings, utcnow=utcnow)
        self._pool: tuple[int, ThreadPoolExecutor] | None = None
        self._watching: set[asyncio.Event] = set()  # one per `watch`: an event belongs to one loop

    @classmethod
    def from_env(cls) -> Self:
        """A client configured by WORKER_* variables. Raises ConfigurationError."""
        return cls(load_consumer())

    @property
    def mail_hosts(self) -> frozenset[str]:
        """The hosts to which worker.mail sends a token: Microsoft's and those of WORKER_MAIL_HOSTS."""
        return self._client.mail_hosts

    @property
    def proxies(self) -> ProxyRules:
        """The proxy through which worker.mail reaches the mail servers: that of WORKER_PROXY or HTTPS_PROXY."""
        return self._client.proxies

    async def get(self, email: str, *, min_ttl: float | None = None) -> AccessToken:
        """An access token that lives for at least ``min_ttl`` more seconds, if one can be obtained.

        A token in this process's memory is returned without a switch of threads. Raises as ``TokenClient.get`` does: an
        AccountError, UnreadableSecret, Unavailable, or InvalidInput.
        """
        if (token := self._client.recall(email, min_ttl=min_ttl)) is not None:
            return token
        return await self._in_thread(self._client.get, email, min_ttl=min_ttl)

    async def get_many(
        self, emails: Iterable[str], *, min_ttl: float | None = None
    ) -> dict[str, AccessToken | WorkerError]:
        """``get`` for many addresses at once. Maps each address as given to its token, or to the error of ``get``."""
        return await self._in_thread(self._client.get_many, list(emails), min_ttl=min_ttl)

    async def load(self, email: str, *, min_ttl: float | None = None) -> MailAccount:
        """The account's mail servers, and a token that lives for at least ``min_ttl`` more seconds.

        The token is None for an account that does not use OAuth. Raises as ``get`` does for the others.
        """
        return await self._in_thread(self._client.load, email, min_ttl=min_ttl)

    async def report_rejected(self, email: str, version: int) -> AccessToken:
        """Another token, after a mail server has rejected the one of this ``version``.

        Raises as ``get`` does, Unavailable while Postgres is unavailable, and TokenRefused if the rejected token was
        itself issued because of such a report within the last ten minutes. ``TokenRefused.retry_after`` is the time
        until a report leads to another refresh: a timedelta, or None if that is not known.
        """
        return await self._in_thread(self._client.report_rejected, email, version)

    async def save(
        self,
        email: str,
        *,
        refresh_token: str,
        access_token: str | None = None,
        expires_at: datetime | None = None,
        client: str = DEFAULT_CLIENT,
        authority: str | None = None,
        scopes: tuple[str, ...] = (),
        mail: MailServers | None = None,
        login_name: str | None = None,
        labels: Iterable[str] | None = None,
    ) -> None:
        """Store the result of a sign-in; every earlier failure of the account ends.

        ``TokenClient.save`` explains the arguments. Raises InvalidInput or Unavailable, and ConfigurationError in a
        process that only reads.
        """
        await self._in_thread(
            self._client.save,
            email,
            refresh_token=refresh_token,
            access_token=access_token,
            expires_at=expires_at,
            client=client,
            authority=authority,
            scopes=scopes,
            mail=mail,
            login_name=login_name,
            labels=labels,
        )

    async def disconnect(self, email: str) -> None:
        """Erase the account's tokens in Postgres and in Redis.

        Raises UnknownAccount, Unavailable (repeat the call then), and ConfigurationError in a process that only reads.
        """
        await self._in_thread(self._client.disconnect, email)

    async def watch(
        self, *, every: float = 5.0, since: datetime | None = None
    ) -> AsyncGenerator[AttentionNeeded, None]:
        """The accounts that need their user, an administrator or an operator. First come those that do now.

        Reads Postgres once in ``every`` seconds, and ends when the client is closed. ``since`` is the ``since`` of the
        last event seen, an aware datetime; the events after it are returned, and the latest may be repeated. Raises
        ConfigurationError without WORKER_DATABASE_URL.
        """
        watch = await self._in_thread(self._client.begin_watch, since)
        closed = asyncio.Event()
        self._watching.add(closed)
        try:
            while not self._client.is_closed:
                for event in await self._in_thread(watch.poll):
                    yield event
                with suppress(TimeoutError):
                    await asyncio.wait_for(closed.wait(), every)
        finally:
            self._watching.discard(closed)

    async def close(self) -> None:
        """Close all connections of this client. May be called again."""
        await asyncio.to_thread(self._client.close)
        for closed in self._watching:
            closed.set()
        pool, self._pool = self._pool, None
        if pool and pool[0] == os.getpid():
            pool[1].shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._client.is_closed:
            raise ClientClosed
        return await asyncio.get_running_loop().run_in_executor(self._executor(), partial(call, *args, **kwargs))

    def _executor(self) -> ThreadPoolExecutor:
        """The threads of this process, because they do not survive a fork. Called in the event loop only."""
        if self._pool is None or self._pool[0] != os.getpid():
            self._pool = os.getpid(), ThreadPoolExecutor(_THREADS, thread_name_prefix="token-client")
        return self._pool[1]
