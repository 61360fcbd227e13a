"""TokenClient, for threads and processes."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from worker import clock
from worker.bootstrap import bootstrap_consumer
from worker.client.process import PerProcess
from worker.domain.account import DEFAULT_CLIENT, Grant, MailServers
from worker.domain.cache_entry import MailAccount
from worker.domain.errors import ConfigurationError, WorkerError
from worker.domain.token import AccessToken, Secret
from worker.service.accounts.manager import AccountManager
from worker.service.accounts.watch import AccountWatch, AttentionNeeded
from worker.settings import ReaderSettings, Settings, load_consumer


class TokenClient:
    """Reads tokens from memory or Redis, else from Postgres, else refreshes: once, whoever asks.

    With WORKER_ACCESS_KEYS instead of WORKER_ENCRYPTION_KEYS it only reads: it needs no client secret, can open no
    refresh token, and asks the workers to refresh.

    Thread-safe, and after a fork the child goes on with connections of its own. What another process has changed is
    noticed within ten seconds, what this client has changed at once. Close it, or use it as a context manager; then
    every method raises ClientClosed.
    """

    def __init__(self, settings: Settings | ReaderSettings, *, utcnow: Callable[[], datetime] = clock.utcnow) -> None:
        self._process = PerProcess(lambda: bootstrap_consumer(settings, utcnow=utcnow))

    @classmethod
    def from_env(cls) -> Self:
        """A client configured by WORKER_* variables. Raises ConfigurationError."""
        return cls(load_consumer())

    def get(self, email: str, *, min_ttl: float | None = None) -> AccessToken:
        """An access token that lives for at least ``min_ttl`` more seconds, if one can be had.

        Without ``min_ttl``: five minutes, or a quarter of a short-lived token's life. While a refresh is failing, the
        token at hand is returned for as long as it lives: look at its ``expires_at``.

        Raises an AccountError (UnknownAccount, NeedsUser, BlockedByAdmin, BackingOff, AccountInactive,
        ClientMisconfigured), UnreadableSecret, or Unavailable; each has a ``code``, and an AccountError ``advice`` for
        the user. InvalidInput if this is no e-mail address.
        """
        return self._process.get().tokens.get(email, min_ttl=_span(min_ttl))

    def recall(self, email: str, *, min_ttl: float | None = None) -> AccessToken | None:
        """What ``get`` would return, if it is in this process's memory; never waits for anything. Raises likewise."""
        return self._process.get().tokens.recall(email, min_ttl=_span(min_ttl))

    def get_many(self, emails: Iterable[str], *, min_ttl: float | None = None) -> dict[str, AccessToken | WorkerError]:
        """``get`` for many at once, by the addresses as given; what ``get`` would raise for one is that one's value."""
        return self._process.get().tokens.get_many(emails, min_ttl=_span(min_ttl))

    def load(self, email: str, *, min_ttl: float | None = None) -> MailAccount:
        """All a mail client needs to log in. Raises as ``get`` does, unless the account uses no OAuth at all."""
        return self._process.get().tokens.load(email, min_ttl=_span(min_ttl))

    def report_rejected(self, email: str, version: int) -> AccessToken:
        """Another token, after the mail server has refused the one of this ``version``, which seemed to live.

        A newer one that somebody has got meanwhile is returned; else Microsoft is asked once, however many report it.
        Raises as ``get`` does, Unavailable while Postgres is away, and TokenRefused if the refused token is itself what
        such a report has brought within the last ten minutes: it is not the token then.
        """
        return self._process.get().tokens.report_rejected(email, version)

    def save(
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
        """Store what a sign-in gave, from the application's redirect handler. Ends every earlier failure state.

        ``expires_at`` is aware; without it the access token is not kept and a new one is fetched at once.
        Raises InvalidInput or Unavailable; ConfigurationError in a process that only reads.
        """
        grant = Grant(
            email=email,
            refresh_token=Secret(refresh_token),
            access_token=Secret(access_token) if access_token else None,
            expires_at=expires_at,
            client=client,
            authority=authority,
            scopes=scopes,
            mail=mail,
        )
        self._accounts().save([grant])

    def disconnect(self, email: str) -> None:
        """Erase the account's tokens. Raises UnknownAccount, and ConfigurationError in a process that only reads."""
        self._accounts().disconnect(email)

    def watch(self, *, every: float = 5.0, since: datetime | None = None) -> Iterator[AttentionNeeded]:
        """Accounts that need their user, an administrator or an operator: those that do now, then as it happens.

        Looks at Postgres ``every`` so many seconds, and goes on after it was away; ends when the client is closed. With
        ``since``, the ``since`` of the last event seen, it goes on from there and may repeat the latest. Raises
        ConfigurationError without WORKER_DATABASE_URL.
        """
        watch = self.begin_watch(since)
        while True:
            yield from watch.poll()
            if self._process.closed.wait(every):
                return

    def begin_watch(self, since: datetime | None = None) -> AccountWatch:
        """For applications with their own loop: each ``poll()`` returns the new events. Raises as ``watch`` does."""
        database = self._process.get().database
        if database is None:
            raise ConfigurationError("WORKER_DATABASE_URL is not set, and only Postgres knows which accounts need help")
        return AccountWatch(database, since)

    @property
    def is_closed(self) -> bool:
        return self._process.closed.is_set()

    def close(self) -> None:
        """Close all that this client has opened; may be repeated."""
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accounts(self) -> AccountManager:
        accounts = self._process.get().accounts
        if accounts is None:
            raise ConfigurationError(
                "with WORKER_ACCESS_KEYS this process only reads; what stores grants or erases them needs"
                " WORKER_ENCRYPTION_KEYS, WORKER_DATABASE_URL and the app registration"
            )
        return accounts


def _span(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
