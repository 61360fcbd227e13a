"""Makers of domain values with defaults, and the clock that tests turn by hand."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET
from worker.domain.account import Lease, LeaseId, Status, account_id
from worker.domain.outcome import Refreshed
from worker.domain.token import Sealed, Secret
from worker.identity.registration import ClientCredential, Registration

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


class TurnedClock:
    """A clock that stands still until ``advance`` moves it."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> datetime:
        self.now += timedelta(**by)
        return self.now


def emails(count: int, domain: str = "contoso.com") -> list[str]:
    return [f"user{number:03}@{domain}" for number in range(count)]


def make_claim(**changes: Any) -> Lease:
    lease = Lease(
        account_id=account_id("ann@contoso.com"),
        email="ann@contoso.com",
        client="default",
        authority=None,
        scopes=(),
        refresh_token=Sealed(b"sealed"),
        version=1,
        lease_id=LeaseId(UUID(int=7)),
        lease_until=NOW + timedelta(minutes=2),
        status=Status.ACTIVE,
        failure=None,
    )
    return replace(lease, **changes)


def make_refreshed(**changes: Any) -> Refreshed:
    refreshed = Refreshed(
        access_token=Secret("an-access-token"),
        refresh_token=Secret("a-refresh-token"),
        obtained_at=NOW,
        expires_at=NOW + timedelta(hours=1),
    )
    return replace(refreshed, **changes)


def make_registration(**changes: Any) -> Registration:
    """The emulator's default app registration."""
    registration = Registration(
        name="default",
        client_id=DEFAULT_CLIENT_ID,
        authority="https://localhost/common",
        scopes=("https://outlook.office.com/IMAP.AccessAsUser.All",),
        credentials=(ClientCredential(secret=Secret(DEFAULT_CLIENT_SECRET)),),
    )
    return replace(registration, **changes)
