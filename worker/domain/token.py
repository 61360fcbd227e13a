"""An access token, and the cache entry that carries it."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from worker.domain.account import DEFAULT_CLIENT, MICROSOFT, AccountId, MailServers, Status
from worker.domain.secret import Sealed, Secret

if TYPE_CHECKING:
    from worker.domain.account import Account


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """A live access token, as a consumer gets it. Times are aware and in UTC.

    ``version`` grows with every new token of the account; pass it to ``report_rejected``.
    """

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
        """How long the token lives from ``now`` on; negative once it has expired."""
        return self.expires_at - now


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedFailure:
    """Why no better token can be had for an account, so that no consumer finds it out again (negative caching)."""

    kind: str  # of the last failure; or one of cached_failure.py's own
    code: str
    claims: str | None = None
    retry_at: datetime | None = None  # None if only a person can end the failure
    noted_at: datetime


@dataclass(slots=True, kw_only=True)
class CacheEntry:
    """One account as Redis keeps it; tokens are None once they are erased."""

    account_id: AccountId
    email: str
    status: Status
    version: int
    client: str = DEFAULT_CLIENT
    authority: str | None = None
    scopes: tuple[str, ...] = ()
    token: AccessToken | None = None
    refresh_token: Sealed | None = None  # sealed for its own purpose: a reader of the entry cannot spend it
    use_oauth: bool = True
    mail: MailServers = MICROSOFT
    failure: CachedFailure | None = None

    @classmethod
    def of(
        cls, account: "Account", *, token: AccessToken | None = None, failure: CachedFailure | None = None
    ) -> "CacheEntry":
        """A stored account as the cache keeps it."""
        return cls(
            account_id=account.id,
            email=account.email,
            status=account.status,
            version=account.version,
            client=account.client,
            authority=account.authority,
            scopes=account.scopes,
            token=token,
            refresh_token=account.refresh_token,
            use_oauth=account.use_oauth,
            mail=account.mail,
            failure=failure,
        )

    def with_failure(self, failure: CachedFailure | None) -> "CacheEntry":
        return replace(self, failure=failure)


@dataclass(frozen=True, slots=True, kw_only=True)
class MailAccount:
    """Everything a mail client needs to log in; ``token`` is None for an account that does not use OAuth."""

    email: str
    servers: MailServers
    use_oauth: bool
    token: AccessToken | None
