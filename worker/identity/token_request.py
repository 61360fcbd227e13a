"""One refresh, from the request to its outcome."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from worker.domain.client_type import ClientType
from worker.domain.outcome import Outcome
from worker.domain.token import Secret

Key = TypeVar("Key")


@dataclass(slots=True, kw_only=True)
class TokenRequest:
    """A refresh token to be spent, by which app registration and where."""

    refresh_token: Secret
    client: str
    authority: str | None  # None: the registration's own
    scopes: Sequence[str]  # empty: the registration's own
    client_type: ClientType = ClientType.CONFIDENTIAL


@dataclass(slots=True)
class RefreshAttempt(Generic[Key]):
    """A TokenRequest on its way, and in the end its outcome. ``key`` is the caller's.

    ``requested_at`` is the instant before the last HTTP request, ``latency`` the time between all its HTTP requests and
    their responses. ``error`` is the unexpected exception behind the outcome, if there was one.
    ``refusals`` holds the first refusal of each client type that the grant does not belong to.
    """

    key: Key
    request: TokenRequest
    client_type: ClientType  # that the current request has
    credentials: tuple[int, ...]  # that it can still be sent with, the current one first
    requested_at: datetime = field(init=False)
    latency: timedelta = timedelta(0)
    outcome: Outcome = field(init=False)
    error: Exception | None = None
    refusals: dict[ClientType, Outcome] = field(default_factory=dict)
