"""Identities for tests, and refreshes through them as the refresher makes them."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.factories import NOW, make_registration
from worker.domain.outcome import Outcome
from worker.domain.token import Secret
from worker.identity import Identity, RefreshAttempt, TokenRequest


@contextmanager
def open_identity(
    authority: str,
    ca_bundle: Path | None,
    *,
    connections: int = 4,
    endpoint_hosts: Collection[str] = (),
    **registration: Any,
) -> Iterator[Identity]:
    """An Identity with one registration, closed at the end of the block."""
    registrations = [make_registration(authority=authority, **registration)]
    identity = Identity(registrations, ca_bundle=ca_bundle, connections=connections, endpoint_hosts=endpoint_hosts)
    try:
        yield identity
    finally:
        identity.close()


def refresh(identity: Identity, refresh_token: str = "the-old-refresh-token", **changes: Any) -> Outcome:
    """Use a refresh token while the clock stands still at NOW."""
    now = changes.pop("now", lambda: NOW)
    values: dict[str, Any] = {"client": "default", "authority": None, "scopes": (), **changes}
    request = TokenRequest(refresh_token=Secret(refresh_token), **values)
    [[attempt]] = identity.refresh_all(iter([(None, request)]), now=now)
    if attempt.error:
        raise attempt.error
    return attempt.outcome


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
    attempts: list[RefreshAttempt[int]] = [attempt for group in groups for attempt in group]
    return [attempt.error or attempt.outcome for attempt in sorted(attempts, key=lambda attempt: attempt.key)]
