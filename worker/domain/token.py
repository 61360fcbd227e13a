"""An access token, and the cache entry that carries it."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from worker.domain.account import DEFAULT_CLIENT, MICROSOFT, AccountId, MailServers, Status
from worker.domain.secret import Sealed, Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """A live access token, as a consumer gets it."""

    email: str
    secret: Secret
    obtained_at: datetime
    expires_at: datetime
    version: int

    @property
    def value(self) -> str:
        """The token itself: for the Authorization header or XOAUTH2, and for nothing else."""
        return self.secret.reveal()

    def ttl(self, now: datetime) -> timedelta:
        """How long it lives from ``now`` on; negative once it has expired."""
        return self.expires_at - now


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedFailure:
    """Why nothing better can be had for an account, as noted when it was found out."""

    kind: str  # of the last failure; of problem.py's own for what is none
    code: str
    claims: str | None = None
    retry_at: datetime | None = None  # when there may be more luck; None if only people can tell
    noted_at: datetime


@dataclass(slots=True, kw_only=True)
class CacheEntry:
    """One account as Redis keeps it; tokens are None once they are gone."""

    account_id: AccountId
    email: str
    status: Status
    version: int
    client: str = DEFAULT_CLIENT
    authority: str | None = None
    scopes: tuple[str, ...] = ()
    token: AccessToken | None = None
    refresh_token: Sealed | None = None  # still sealed for its own purpose: who reads the entry cannot spend it
    use_oauth: bool = True
    mail: MailServers = MICROSOFT
    problem: CachedFailure | None = None

    def renewed(self, token: AccessToken, refresh_token: Sealed | None) -> "CacheEntry":
        """The entry after a refresh; None keeps the refresh token."""
        return replace(
            self,
            status=Status.ACTIVE,
            version=token.version,
            token=token,
            refresh_token=refresh_token or self.refresh_token,
            problem=None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MailAccount:
    """Everything a mail client needs to log in; ``token`` is None for an account that does not use OAuth.

    ``login_name`` is the user name for the mail server where it is not the address; None: the address.
    """

    email: str
    servers: MailServers
    use_oauth: bool
    token: AccessToken | None
    login_name: str | None = None
