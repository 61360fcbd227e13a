"""The meaning of Microsoft's answer. Six cases; every dispatch handles all six."""

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, TypeAlias

from worker.domain.token import Secret


class Scope(enum.StrEnum):
    """How far an answer reaches."""

    ACCOUNT = "account"
    RESOURCE = "resource"  #: requested by the account; only rows of codes.csv have it, outcomes have TENANT or ACCOUNT
    TENANT = "tenant"
    CLIENT = "client"  #: the app registration
    SERVICE = "service"  #: the identity platform
    NETWORK = "network"  #: the way from this process to the platform

    @property
    def is_about_others(self) -> bool:
        """Whether the outcome says something about further accounts, those of the tenant at least."""
        return self is not Scope.ACCOUNT

    @property
    def is_about_registration(self) -> bool:
        """Whether the outcome says something about every account of the app registration."""
        return self not in (Scope.ACCOUNT, Scope.TENANT)

    @property
    def is_network(self) -> bool:
        """Whether only the way from this machine to Microsoft is concerned."""
        return self is Scope.NETWORK


class Kind(enum.StrEnum):
    """An outcome's class, as the ledger and the row store it."""

    REFRESHED = "refreshed"
    THROTTLED = "throttled"
    TRANSIENT = "transient"
    REAUTH_REQUIRED = "reauth_required"
    BLOCKED = "blocked"
    MISCONFIGURED = "misconfigured"


@dataclass(slots=True, kw_only=True)
class Refreshed:
    """A new access token, and a new refresh token if Microsoft rotated it."""

    scope: ClassVar[Scope] = Scope.ACCOUNT
    access_token: Secret
    refresh_token: Secret | None
    obtained_at: datetime  # the instant before the request: never later than Microsoft's own start of the lifetime
    expires_at: datetime
    refresh_on: datetime | None = None
    code: str = "ok"
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttled:
    """Too many requests, says Microsoft; nothing is wrong with the grant."""

    code: str
    retry_after: timedelta | None = None
    scope: Scope = Scope.ACCOUNT
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transient:
    """Try again later: network, timeout (Microsoft may have rotated the token or not), 5xx, a malformed answer."""

    code: str
    retry_after: timedelta | None = None
    scope: Scope = Scope.ACCOUNT
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReauthRequired:
    """Only the user can revive the grant. ``certain`` is False where one answer is no proof."""

    scope: ClassVar[Scope] = Scope.ACCOUNT
    code: str
    certain: bool = True
    claims: str | None = None
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """An administrator or a policy refuses this account; a sign-in may not help."""

    scope: ClassVar[Scope] = Scope.ACCOUNT
    code: str
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Misconfigured:
    """Our app registration or request is wrong, or what is stored of the account says so; its user is not to blame."""

    code: str
    scope: Scope = Scope.CLIENT
    correlation_id: str | None = None


Outcome: TypeAlias = Refreshed | Throttled | Transient | ReauthRequired | Blocked | Misconfigured


def kind(outcome: Outcome) -> Kind:
    """The outcome's class."""
    return _KINDS[type(outcome)]


_KINDS: dict[type, Kind] = {
    Refreshed: Kind.REFRESHED,
    Throttled: Kind.THROTTLED,
    Transient: Kind.TRANSIENT,
    ReauthRequired: Kind.REAUTH_REQUIRED,
    Blocked: Kind.BLOCKED,
    Misconfigured: Kind.MISCONFIGURED,
}
