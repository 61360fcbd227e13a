"""AsyncTokenClient: TokenClient for asyncio. What is in memory is there at once; all else happens in a few threads."""

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
from worker.domain.token import AccessToken
from worker.service.accounts.watch import AttentionNeeded
from worker.settings import ReaderSettings, Settings, load_consumer

_THREADS = 8  # each may wait for Microsoft; the others' questions wait behind them, those of memory never

P = ParamSpec("P")
T = TypeVar("T")


class AsyncTokenClient:
    """The methods of TokenClient, to be awaited; see there. One for all tasks of a process, closed at the end."""

    def __init__(self, settings: Settings | ReaderSettings, *, utcnow: Callable[[], datetime] = clock.utcnow) -> None:
        self._client = TokenClient(settings, utcnow=utcnow)
        self._pool: tuple[int, ThreadPoolExecutor] | None = None
        self._watching: set[asyncio.Event] = set()  # one per watch, because such an event belongs to one loop

    @classmethod
    def from_env(cls) -> Self:
        """A client configured by WORKER_* variables. Raises ConfigurationError."""
        return cls(load_consumer())

    async def get(self, email: str, *, min_ttl: float | None = None) -> AccessToken:
        if (token := self._client.recall(email, min_ttl=min_ttl)) is not None:
            return token
        return await self._in_thread(self._client.get, email, min_ttl=min_ttl)

    async def get_many(
        self, emails: Iterable[str], *, min_ttl: float | None = None
    ) -> dict[str, AccessToken | WorkerError]:
        return await self._in_thread(self._client.get_many, list(emails), min_ttl=min_ttl)

    async def load(self, email: str, *, min_ttl: float | None = None) -> MailAccount:
        return await self._in_thread(self._client.load, email, min_ttl=min_ttl)

    async def report_rejected(self, email: str, version: int) -> AccessToken:
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
    ) -> None:
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
        )

    async def disconnect(self, email: str) -> None:
        await self._in_thread(self._client.disconnect, email)

    async def watch(
        self, *, every: float = 5.0, since: datetime | None = None
    ) -> AsyncGenerator[AttentionNeeded, None]:
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
        """Close all that this client has opened; may be repeated."""
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
        """This process's own: threads do not survive a fork. Used from the event loop alone."""
        if self._pool is None or self._pool[0] != os.getpid():
            self._pool = os.getpid(), ThreadPoolExecutor(_THREADS, thread_name_prefix="token-client")
        return self._pool[1]
