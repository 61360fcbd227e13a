"""What the tests of the services share: mailboxes that signed in, and a look behind the scenes."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import psycopg
from sqlalchemy import event, text
from structlog.typing import EventDict

from tests.factories import TurnedClock
from tests.integration.service.stage import Stage
from worker.bootstrap import Services, bootstrap
from worker.devkit.emulator import Emulator
from worker.domain.account import Account, Grant, account_id
from worker.domain.secret import Sealed, Secret
from worker.domain.token import CacheEntry
from worker.service.tokens.cache import TokenCache
from worker.settings import Settings
from worker.vault import Purpose, Vault

T = TypeVar("T")

ANN, BOB, CAT = "ann@contoso.com", "bob@fabrikam.com", "cat@contoso.com"
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

# What operators search their logs for.
PERSISTED = "Token persisted to database"
RECOVERED = "Recovered credentials from database and cached in Redis"
NOT_PERSISTED = "Error persisting tokens to database"


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """One process's services, the platform they ask, and the stores they share with other processes."""

    services: Services
    emulator: Emulator
    stage: Stage
    clock: TurnedClock
    settings: Settings
    undo: ExitStack
    logs: list[EventDict] = field(repr=False)

    def another(self, **settings: Any) -> Services:
        """What another process would have, configured alike except where something else is given."""
        services = bootstrap(self.settings.model_copy(update=settings), utcnow=self.clock)
        self.undo.callback(services.close)
        return services

    def environment(self) -> dict[str, str]:
        """The settings as another process would find them."""
        settings = self.settings
        assert settings.client_secret
        return {
            "database_url": settings.database_url.get_secret_value(),
            "redis_url": settings.redis_url.get_secret_value(),
            "encryption_keys": settings.encryption_keys.get_secret_value(),
            "client_id": str(settings.client_id),
            "client_secret": settings.client_secret.get_secret_value(),
            "authority": settings.authority,
            "ca_bundle": str(settings.ca_bundle),
        }

    def enrol(self, *emails: str, **terms: Any) -> None:
        """The users sign in, and only their refresh tokens are stored: all are due. ``terms`` are Microsoft's."""
        granted = [self.emulator.enrol(email, **terms) for email in emails]
        grants = [Grant(email=each.email, refresh_token=Secret(each.refresh_token)) for each in granted]
        self.services.accounts.save(grants)

    def sign_in(self, *emails: str, lifetime: timedelta = HOUR, **terms: Any) -> None:
        """The users sign in, and all of it is stored: nothing is due for a while."""
        self.services.accounts.save([self.grant(email, lifetime=lifetime, **terms) for email in emails])

    def grant(self, email: str, *, lifetime: timedelta = HOUR, **terms: Any) -> Grant:
        granted = self.emulator.enrol(email, access_token_lifetime=lifetime, **terms)
        return Grant(
            email=email,
            refresh_token=Secret(granted.refresh_token),
            access_token=Secret(granted.access_token),
            expires_at=self.clock() + timedelta(seconds=granted.expires_in),
        )

    def account(self, email: str = ANN) -> Account:
        return self.services.accounts.find(email)

    def cached(self, email: str = ANN) -> CacheEntry | None:
        """The account's entry in Redis, opened."""
        return TokenCache(self.services.cache, Vault(self.settings.keys)).read(account_id(email))

    def opened(self, purpose: Purpose, email: str = ANN) -> str | None:
        """A secret of the account, as Postgres keeps it."""
        [(sealed,)] = self.query(f"SELECT {purpose} FROM mail_credentials WHERE email = '{email}'")
        if sealed is None:
            return None
        return Vault(self.settings.keys).open(Sealed(sealed), account_id(email), purpose).reveal()

    def query(self, statement: str, **values: object) -> list[Any]:
        with self.services.database.begin() as connection:
            result = connection.execute(text(statement), values)
            return [tuple(row) for row in result] if result.returns_rows else []

    def locked_table(self) -> psycopg.Connection:
        """Nobody gets at the accounts until it is rolled back or closed."""
        url = self.settings.database_url.get_secret_value().replace("postgresql+psycopg://", "postgresql://")
        connection = psycopg.connect(url)
        connection.execute("LOCK TABLE mail_credentials")
        return connection

    def waiting(self) -> int:
        """How many statements wait for a lock."""
        [(count,)] = self.query("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return int(count)

    def asked(self) -> int:
        """How many questions have reached Microsoft."""
        return self.emulator.statistics().requests

    def told(self, line: str) -> list[str]:
        """The accounts that a log line was about, one for each time it was written."""
        return [entry["email"] for entry in self.logs if entry["event"] == line]

    @contextmanager
    def counted(self) -> Iterator[list[str]]:
        """The statements this process sends to Postgres meanwhile."""
        statements: list[str] = []

        def listen(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            statements.append(statement)

        engine = self.services.database._engine
        event.listen(engine, "before_cursor_execute", listen)
        try:
            yield statements
        finally:
            event.remove(engine, "before_cursor_execute", listen)

    @contextmanager
    def in_flight(self, work: Callable[[], T], *, answers: int = 1) -> Iterator[Future[T]]:
        """Inside the block ``work`` goes on, and so many of Microsoft's answers to it are on their way."""
        held = self.stage.hold(answers)
        with ThreadPoolExecutor(1) as pool:
            flight = pool.submit(work)
            try:
                assert held.ready.wait(60)
                yield flight
            finally:
                held.released.set()
