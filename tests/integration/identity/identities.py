"""Identities for tests, and refreshes through them as the refresher makes them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.factories import NOW, make_registration
from worker.domain.outcome import Outcome
from worker.domain.secret import Secret
from worker.identity import Identity, TokenRequest, TokenResponse


@contextmanager
def open_identity(
    authority: str, ca_bundle: Path | None, *, connections: int = 4, **registration: Any
) -> Iterator[Identity]:
    """An Identity with one registration, closed at the end of the block."""
    registrations = [make_registration(authority=authority, **registration)]
    identity = Identity(registrations, ca_bundle=ca_bundle, connections=connections)
    try:
        yield identity
    finally:
        identity.close()


def refresh(identity: Identity, refresh_token: str = "the-old-refresh-token", **changes: Any) -> Outcome:
    """Spend a refresh token while the clock stands still at NOW."""
    arguments: dict[str, Any] = {"client": "default", "authority": None, "scopes": (), "now": lambda: NOW}
    outcome = identity.refresh(Secret(refresh_token), **{**arguments, **changes})
    assert not isinstance(outcome, Exception)
    return outcome


def token_request(
    refresh_token: str = "an-old-token", *, authority: str | None = None, scopes: str = ""
) -> TokenRequest:
    return TokenRequest(
        refresh_token=Secret(refresh_token), client="default", authority=authority, scopes=tuple(scopes.split())
    )


def refresh_all(
    identity: Identity, requests: Iterable[TokenRequest], **more: Iterable[tuple[str, str | None]]
) -> list[Outcome | Exception]:
    """The outcomes in the order of the requests."""
    groups = identity.refresh_all(iter(enumerate(requests)), now=lambda: NOW, **more)
    responses: list[TokenResponse[int]] = [response for group in groups for response in group]
    return [response.outcome for response in sorted(responses, key=lambda response: response.key)]
