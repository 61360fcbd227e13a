"""One refresh, from the request to its outcome."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from worker.domain.outcome import Misconfigured, Outcome
from worker.domain.token import Secret

Key = TypeVar("Key")


@dataclass(slots=True, kw_only=True)
class TokenRequest:
    """A refresh token to be spent, by which app registration and where."""

    refresh_token: Secret
    client: str
    authority: str | None  # None: the registration's own
    scopes: Sequence[str]  # empty: the registration's own


@dataclass(slots=True)
class RefreshAttempt(Generic[Key]):
    """A TokenRequest on its way, and in the end its outcome. ``key`` is the caller's.

    ``requested_at`` is the instant before the last HTTP request, ``latency`` the time between all its HTTP requests and
    their responses. ``error`` is the unexpected exception behind the outcome, if there was one.
    """

    key: Key
    request: TokenRequest
    credentials: tuple[int, ...]  # that it can still be sent with, the current one first
    requested_at: datetime = field(init=False)
    latency: timedelta = timedelta(0)
    outcome: Outcome = field(init=False)
    error: Exception | None = None
    refusal: Misconfigured | None = (
        None  # of a request with a credential, where the grant may belong to a public client
    )
