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
from worker.domain.errors import ConfigurationError, InvalidInput, WorkerError
from worker.domain.labels import parse_labels
from worker.domain.mail_hosts import parse_mail_hosts
from worker.domain.proxy import ProxyRules
from worker.domain.token import AccessToken, Secret
from worker.service.accounts.manager import AccountManager
from worker.service.accounts.watch import AccountWatch, AttentionNeeded
from worker.settings import ReaderSettings, Settings, load_consumer


class TokenClient:
    """Reads tokens from memory or Redis, else from Postgres. If a token is stale, one refresh serves all callers.

    With WORKER_ACCESS_KEYS instead of WORKER_ENCRYPTION_KEYS it only reads. Then it needs no client secret, cannot open
    refresh tokens, and requests refreshes from the workers.

    Thread-safe. After a fork the child opens connections of its own. The client sees changes of other processes within
    ten seconds, and its own changes at once. Close it, or use it as a context manager; after that every method raises
    ClientClosed.
    """

    def __init__(self, settings: Settings | ReaderSettings, *, utcnow: Callable[[], datetime] = clock.utcnow) -> None:
        self._process = PerProcess(lambda: bootstrap_consumer(settings, utcnow=utcnow))
        self._mail_hosts = parse_mail_hosts(settings.mail_hosts or "")
        self._proxies = settings.proxies

    @classmethod
    def from_env(cls) -> Self:
        """A client configured by WORKER_* variables. Raises ConfigurationError."""
        return cls(load_consumer())

    @property
    def mail_hosts(self) -> frozenset[str]:
        """The hosts to which worker.mail sends a token: Microsoft's and those of WORKER_MAIL_HOSTS."""
        return self._mail_hosts

    @property
    def proxies(self) -> ProxyRules:
        """The proxy through which worker.mail reaches the mail servers: that of WORKER_PROXY or HTTPS_PROXY."""
        return self._proxies

    def get(self, email: str, *, min_ttl: float | None = None) -> AccessToken:
        """An access token that lives for at least ``min_ttl`` more seconds, if one can be obtained.

        The default of ``min_ttl`` is five minutes, or a quarter of the lifetime of a short-lived token. While refreshes
        fail, the stored token is returned as long as it lives. Its ``expires_at`` says how long that is.

        Raises an AccountError (UnknownAccount, NeedsUser, BlockedByAdmin, BackingOff, AccountInactive,
        ClientMisconfigured), UnreadableSecret, or Unavailable. Each has a ``code``, and an AccountError has ``advice``
        for the user. ``BackingOff.retry_after`` is the time until the next attempt, a timedelta. Raises InvalidInput if
        ``email`` is no e-mail address.
        """
        return self._process.get().tokens.get(email, min_ttl=_span(min_ttl))

    def recall(self, email: str, *, min_ttl: float | None = None) -> AccessToken | None:
        """The result of ``get`` if this process has it in memory, else None. Never waits. Raises as ``get`` does."""
        return self._process.get().tokens.recall(email, min_ttl=_span(min_ttl))

    def get_many(self, emails: Iterable[str], *, min_ttl: float | None = None) -> dict[str, AccessToken | WorkerError]:
        """``get`` for many addresses at once. Maps each address as given to its token, or to the error of ``get``."""
        return self._process.get().tokens.get_many(emails, min_ttl=_span(min_ttl))

    def load(self, email: str, *, min_ttl: float | None = None) -> MailAccount:
        """The account's mail servers, and a token that lives for at least ``min_ttl`` more seconds (as for ``get``).

        The token is None for an account that does not use OAuth. Raises as ``get`` does for the others.
        """
        return self._process.get().tokens.load(email, min_ttl=_span(min_ttl))

    def report_rejected(self, email: str, version: int) -> AccessToken:
        """Another token, after a mail server has rejected the one of this ``version``.

        If a newer token is stored already, it is returned. Otherwise one refresh serves all processes that report the
        rejection. Raises as ``get`` does, Unavailable while Postgres is unavailable, and TokenRefused if the rejected
        token was itself issued because of such a report within the last ten minutes. Then the cause is the mailbox, its
        permissions or the scopes. ``TokenRefused.retry_after`` is the time until a report leads to another refresh: a
        timedelta, or None if that is not known.
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
        login_name: str | None = None,
        labels: Iterable[str] | None = None,
    ) -> None:
        """Store the result of a sign-in; every earlier failure of the account ends. Call it in your redirect handler.

        ``expires_at`` is the end of ``access_token``, an aware datetime at most 48 hours away. Without it the access
        token is not kept, and a worker fetches a new one at once. ``client`` is the name of the app registration that
        the user signed in to. ``authority`` is the URL of another tenant on the host of that registration; None means
        the registration's own. ``scopes`` are those of the sign-in; empty means the registration's own. ``mail`` are
        the mail servers; None keeps the stored ones, and means Microsoft's for a new account. ``login_name`` is the
        user's name there: pass the ``preferred_username`` of the ID token, because mail servers expect it where it is
        not the address. None keeps the stored one. ``labels`` are up to 16 words of yours, such as ``customer=42``,
        by which an operator selects accounts; they become lower case. None keeps the stored ones.

        Raises InvalidInput or Unavailable, and ConfigurationError in a process that only reads.
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
            login_name=login_name,
            labels=None if labels is None else parse_labels(labels),
        )
        self._accounts().save([grant])

    def disconnect(self, email: str) -> None:
        """Erase the account's tokens in Postgres and in Redis.

        Raises UnknownAccount, Unavailable (repeat the call then), and ConfigurationError in a process that only reads.
        """
        self._accounts().disconnect(email)

    def watch(self, *, every: float = 5.0, since: datetime | None = None) -> Iterator[AttentionNeeded]:
        """The accounts that need their user, an administrator or an operator. First come those that do now.

        Reads Postgres once in ``every`` seconds, waits while it is unavailable, and ends when the client is closed.
        ``since`` is the ``since`` of the last event seen, an aware datetime; the events after it are returned, and the
        latest may be repeated. Raises ConfigurationError without WORKER_DATABASE_URL.
        """
        watch = self.begin_watch(since)
        while True:
            yield from watch.poll()
            if self._process.closed.wait(every):
                return

    def begin_watch(self, since: datetime | None = None) -> AccountWatch:
        """``watch`` for applications with their own loop. Each ``poll()`` returns the new events. Raises likewise."""
        database = self._process.get().database
        if database is None:
            raise ConfigurationError("WORKER_DATABASE_URL is not set, and only Postgres knows which accounts need help")
        return AccountWatch(database, since)

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called in this process."""
        return self._process.closed.is_set()

    def close(self) -> None:
        """Close all connections of this client. May be called again."""
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
                "with WORKER_ACCESS_KEYS this process only reads; to store or erase grants, it needs"
                " WORKER_ENCRYPTION_KEYS, WORKER_DATABASE_URL and the app registration"
            )
        return accounts


def _span(seconds: float | None) -> timedelta | None:
    """Raises InvalidInput."""
    try:
        return None if seconds is None else timedelta(seconds=seconds)
    except (OverflowError, ValueError):  # ValueError for what is no number
        raise InvalidInput("min_ttl is not a number of seconds that a token can live") from None
