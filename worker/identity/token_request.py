"""The input and the output of ``Identity.refresh_all``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from worker.domain.outcome import Outcome
from worker.domain.secret import Secret

Key = TypeVar("Key")


@dataclass(slots=True, kw_only=True)
class TokenRequest:
    """A refresh token to be spent, by which app registration and where."""

    refresh_token: Secret
    client: str
    authority: str | None  # None: the registration's own
    scopes: Sequence[str]  # empty: the registration's own


@dataclass(slots=True)
class TokenResponse(Generic[Key]):
    """What one TokenRequest came to. An exception stands for a request that could not be made."""

    key: Key
    outcome: Outcome | Exception
    seconds: float  # between sending requests and their responses
