"""What Microsoft's answer means to us. Six cases; every dispatch handles all six."""

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, TypeAlias

from worker.domain.secret import Secret


class Scope(enum.StrEnum):
    """How far an answer reaches."""

    ACCOUNT = "account"
    TENANT = "tenant"
    CLIENT = "client"  #: the app registration
    SERVICE = "service"  #: the identity platform
    NETWORK = "network"  #: our way to it


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
    """Try again later: network, timeout (nobody knows what happened), 5xx, an answer that makes no sense."""

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


def kind(outcome: Outcome) -> str:
    """The outcome's class as stored in the ledger and on the row: ``refreshed``, ``reauth_required``, ..."""
    return _KINDS[type(outcome)]


_KINDS: dict[type, str] = {
    Refreshed: "refreshed",
    Throttled: "throttled",
    Transient: "transient",
    ReauthRequired: "reauth_required",
    Blocked: "blocked",
    Misconfigured: "misconfigured",
}
