"""One question to the identity platform, as the refresher asks it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.factories import NOW, make_registration
from worker.domain.outcome import Outcome
from worker.domain.secret import Secret
from worker.identity import Identity


@contextmanager
def opened(authority: str, ca_bundle: Path | None, *, connections: int = 4, **registration: Any) -> Iterator[Identity]:
    """An Identity with one registration, closed at the end of the block."""
    registrations = [make_registration(authority=authority, **registration)]
    identity = Identity(registrations, ca_bundle=ca_bundle, connections=connections)
    try:
        yield identity
    finally:
        identity.close()


def ask(identity: Identity, refresh_token: str = "the-old-refresh-token", **changes: Any) -> Outcome:
    """Spend a refresh token at the instant NOW, which stands still."""
    question: dict[str, Any] = {"client": "default", "authority": None, "scopes": (), "now": lambda: NOW}
    outcome = identity.refresh(Secret(refresh_token), **{**question, **changes})
    assert not isinstance(outcome, Exception)
    return outcome
