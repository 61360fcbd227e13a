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

    is_about_others: bool  #: whether further accounts are concerned, those of the tenant at least
    is_about_registration: bool  #: whether every account of the app registration is concerned
    is_network: bool  #: whether only the way from this machine to Microsoft is concerned

    def __init__(self, _value: str) -> None:
        # Attributes, not properties: every refresh reads them several times.
        self.is_about_others = self != "account"
        self.is_about_registration = self not in {"account", "resource", "tenant"}
        self.is_network = self == "network"


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

    kind: ClassVar[Kind] = Kind.REFRESHED
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

    kind: ClassVar[Kind] = Kind.THROTTLED
    code: str
    retry_after: timedelta | None = None
    scope: Scope = Scope.ACCOUNT
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transient:
    """Try again later: network, timeout (Microsoft may have rotated the token or not), 5xx, a malformed answer."""

    kind: ClassVar[Kind] = Kind.TRANSIENT
    code: str
    retry_after: timedelta | None = None
    scope: Scope = Scope.ACCOUNT
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReauthRequired:
    """Only the user can revive the grant. ``certain`` is False where one answer is no proof."""

    kind: ClassVar[Kind] = Kind.REAUTH_REQUIRED
    scope: ClassVar[Scope] = Scope.ACCOUNT
    code: str
    certain: bool = True
    claims: str | None = None
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """An administrator or a policy refuses this account; a sign-in may not help."""

    kind: ClassVar[Kind] = Kind.BLOCKED
    scope: ClassVar[Scope] = Scope.ACCOUNT
    code: str
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Misconfigured:
    """Our app registration or request is wrong, or what is stored of the account says so; its user is not to blame."""

    kind: ClassVar[Kind] = Kind.MISCONFIGURED
    code: str
    scope: Scope = Scope.CLIENT
    correlation_id: str | None = None


Outcome: TypeAlias = Refreshed | Throttled | Transient | ReauthRequired | Blocked | Misconfigured
