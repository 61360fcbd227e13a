"""What the time-travel tests share: the users, the application that reads tokens, and a look behind the scenes.

Import the fixtures into the module that uses them: they replace those of conftest.py there.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import jwt
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs
from structlog.typing import EventDict

import worker.celery
from tests.factories import NOW
from tests.integration.travel import FrozenClock, Machine
from worker.bootstrap import Services
from worker.celery import Worker
from worker.devkit.emulator import Emulator
from worker.domain.account import Account, Grant, Status
from worker.domain.secret import Sealed, Secret
from worker.domain.token import AccessToken
from worker.settings import Settings
from worker.vault import Purpose, Vault

ANN, BOB = "ann@contoso.com", "bob@fabrikam.com"
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
USUAL = (60 * MINUTE, 90 * MINUTE)  # Entra's range of default lifetimes of an access token

# What operators search their logs for.
PERSISTED = "Token persisted to database"
RECOVERED = "Recovered credentials from database and cached in Redis"
NOT_PERSISTED = "Error persisting tokens to database"

_SECOND = timedelta(seconds=1)  # the claim `exp` counts whole ones


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Sign in first, then start a machine and let it travel."""

    services: Services
    emulator: Emulator
    clock: FrozenClock
    settings: Settings
    environment: pytest.MonkeyPatch
    machines: ExitStack
    logs: list[EventDict] = field(repr=False)

    def start(self, sweep: timedelta) -> Machine:
        """Beat and a worker, configured from the environment as their processes are, sweeping this often."""
        self.environment.setenv("WORKER_REDIS_URL", self.settings.redis_url.get_secret_value())
        self.environment.setenv("WORKER_SWEEP_INTERVAL", str(sweep.total_seconds()))
        app = Worker()
        app.services = self.services
        return self.machines.enter_context(closing(Machine(app, self.clock)))

    def sign_in(self, *emails: str, **terms: Any) -> None:
        """The users sign in, once, and the application stores what it got. The refresh of ``terms`` is Microsoft's."""
        for email in emails:
            granted = self.emulator.enrol(email, **terms)
            grant = Grant(
                email=email,
                refresh_token=Secret(granted.refresh_token),
                access_token=Secret(granted.access_token),
                expires_at=self.clock() + timedelta(seconds=granted.expires_in),
            )
            self.services.accounts.save([grant])

    def read(self, *emails: str) -> list[AccessToken]:
        """As the application does before it opens a mailbox. By Microsoft's clock what it gets is live, and for as long
        as it is told."""
        tokens = [self.services.tokens.get(email) for email in emails]
        for token in tokens:
            claims = jwt.decode(token.value, options={"verify_signature": False})
            assert claims["upn"] == token.email
            left = datetime.fromtimestamp(claims["exp"], UTC) - self.emulator.clock()
            assert left > max(timedelta(0), token.ttl(self.clock()) - _SECOND)
        return tokens

    def account(self, email: str) -> Account:
        return self.services.accounts.find(email)

    def refreshed_at(self, email: str) -> tuple[datetime, ...]:
        return self.emulator.statistics().by_account[email].refreshed_at

    def opened(self, email: str, purpose: Purpose) -> str | None:
        """A secret of the account, as Postgres keeps it."""
        [(sealed,)] = self.query(f"SELECT {purpose} FROM mail_credentials WHERE email = '{email}'")
        account = self.account(email).id
        return Vault(self.settings.keys).open(Sealed(sealed), account, purpose).reveal() if sealed else None

    def query(self, statement: str) -> list[Any]:
        with self.services.database.begin() as connection:
            result = connection.execute(text(statement))
            return list(result) if result.returns_rows else []

    def told(self, event: str) -> list[str]:
        """The accounts that a log line was about, one for each time it was written."""
        return [entry["email"] for entry in self.logs if entry["event"] == event]

    def triggers(self) -> set[str]:
        """Who has wanted a refresh so far."""
        return {row[0] for row in self.query("SELECT DISTINCT trigger FROM refresh_events")}

    def assert_signed_in_once(self, *emails: str) -> None:
        """Nobody signed in again, Microsoft refused nothing, and its newest refresh token is in Postgres and not in a
        log."""
        seen = self.emulator.statistics()
        assert seen.failures == 0
        assert seen.successes == seen.refreshes
        logged = str(self.logs)
        for account in map(self.account, emails):
            assert (account.status, account.failure) == (Status.ACTIVE, None)
            newest = self.emulator.newest_refresh_token(account.email)
            assert self.opened(account.email, Purpose.REFRESH_TOKEN) == newest
            assert newest not in logged

    def assert_unattended(self, *emails: str) -> None:
        """Besides, no consumer had to refresh what the schedule should have, and Postgres took each answer at once."""
        self.assert_signed_in_once(*emails)
        assert self.triggers() <= {"schedule"}
        assert self.told(NOT_PERSISTED) == []

    def assert_no_haste(self, lifetime: timedelta, *emails: str) -> None:
        """No token was replaced in the first half of its life."""
        for email in emails:
            assert all(later - earlier >= lifetime / 2 for earlier, later in pairwise(self.refreshed_at(email)))


@pytest.fixture(name="clock")
def _clock(request: pytest.FixtureRequest) -> FrozenClock:
    return FrozenClock(getattr(request, "param", NOW))


@pytest.fixture(name="emulator")
def _emulator(clock: FrozenClock, request: pytest.FixtureRequest) -> Emulator:
    return Emulator(clock=clock.off_by(getattr(request, "param", timedelta(0))))


@pytest.fixture(name="world")
def _world(
    services: Services, emulator: Emulator, clock: FrozenClock, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """Time stands still from here on; the servers have started, and made their certificates, before."""
    with clock, capture_logs() as logs, ExitStack() as machines:
        yield World(
            services=services,
            emulator=emulator,
            clock=clock,
            settings=settings,
            environment=monkeypatch,
            machines=machines,
            logs=logs,
        )
    sys.stdout.writelines(f"{entry}\n" for entry in logs)  # pytest shows them if the test has failed
    worker.celery.app.set_current()
