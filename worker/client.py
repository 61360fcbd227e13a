"""What a consumer imports: a live access token for a mailbox, in one call.

>>> with TokenClient.from_env() as client:                              # doctest: +SKIP
...     token = client.get("ann@contoso.com", min_ttl=300)
...     token.value, token.expires_at, token.version
"""

from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from worker.bootstrap import Services, bootstrap
from worker.domain.credential import DEFAULT_CLIENT, AccessToken, Grant, MailServers, Secret
from worker.settings import Settings, load

__all__ = ["AccessToken", "MailServers", "TokenClient"]


class TokenClient:
    """Reads tokens from Redis, else from Postgres, else refreshes: once, whoever asks. Thread-safe.

    Make one per process, after any fork, and close it (or use it as a context manager).
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    @classmethod
    def from_env(cls) -> Self:
        """A client configured by WORKER_* variables. Raises ConfigurationError."""
        return cls(bootstrap(load(Settings)))

    def get(self, email: str, *, min_ttl: float | None = None) -> AccessToken:
        """An access token that lives for at least ``min_ttl`` more seconds, if one can be had.

        Without ``min_ttl``: five minutes, or a quarter of a short-lived token's life. While a refresh is failing, the
        token at hand is returned for as long as it lives: look at its ``expires_at``.

        Raises an AccountError (UnknownAccount, NeedsUser, BlockedByAdmin, BackingOff, AccountInactive,
        ClientMisconfigured), UnreadableSecret, or Unavailable; each has a ``code``.
        """
        wanted = None if min_ttl is None else timedelta(seconds=min_ttl)
        return self._services.tokens.ensure_fresh(email, min_ttl=wanted)

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
        Raises InvalidInput or Unavailable.
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
        self._services.credentials.save([grant])

    def disconnect(self, email: str) -> None:
        """Erase the account's tokens. Raises UnknownAccount."""
        self._services.credentials.disconnect(email)

    def close(self) -> None:
        self._services.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
