"""The installation under test: services of this process, real stores, and the emulator that they send requests to."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import psycopg
from sqlalchemy import text
from structlog.typing import EventDict

from tests.constants import ANN, HOUR
from tests.factories import TurnedClock
from tests.integration.emulator_relay import EmulatorRelay
from tests.waiting import HANG_LIMIT
from worker.bootstrap import Services, bootstrap
from worker.devkit.emulator import Emulator, Lifetime, Registration
from worker.domain.account import DEFAULT_CLIENT, Account, Grant, account_id
from worker.domain.binding import binding_of
from worker.domain.breaker import FAILING_ACCOUNTS
from worker.domain.cache_entry import CacheEntry
from worker.domain.token import Secret
from worker.service.tokens.cache import TokenCache
from worker.settings import Settings
from worker.vault import Purpose, Vault

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """One process's services, Microsoft's emulator, and the stores that other processes share."""

    services: Services
    emulator: Emulator
    relay: EmulatorRelay
    clock: TurnedClock
    settings: Settings
    cleanup: ExitStack
    logs: list[EventDict] = field(repr=False)

    # Processes

    def another_process(self, **settings: Any) -> Services:
        """The services of another process, with the same settings except for those given."""
        changed = Settings.model_validate(self.settings.model_dump() | settings)
        services = bootstrap(changed, utcnow=self.clock)
        self.cleanup.callback(services.close)
        return services

    def plain_settings(self) -> dict[str, str]:
        """The settings as strings, for a child process to validate."""
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

    def refresh_due(self, client: str = DEFAULT_CLIENT) -> dict[str, int]:
        """Refresh one batch of due accounts in this process. The result counts outcomes."""
        return self.services.refresher.refresh_due(client)

    # Accounts

    def sign_in(self, *emails: str, due: bool = False, **terms: Any) -> None:
        """The users sign in, and the application stores their grants as `grant` makes them."""
        self.services.accounts.save([self.grant(email, due=due, **terms) for email in emails])

    def grant(
        self,
        email: str,
        *,
        due: bool = False,
        client: str = DEFAULT_CLIENT,
        lifetime: Lifetime | None = None,
        **terms: Any,
    ) -> Grant:
        """Make a grant as Microsoft issues it when the user signs in.

        A grant that is ``due`` has no access token, so the account is due at once. ``lifetime`` is that of access
        tokens. It defaults to an hour, and for a due account to the emulator's last value, at first 60 to 90 minutes.
        The other ``terms`` are those of the emulator's ``enrol``.
        """
        if lifetime is None and not due:
            lifetime = HOUR
        granted = self.emulator.enrol(email, access_token_lifetime=lifetime, **terms)
        refresh_token = Secret(granted.refresh_token)
        if due:
            return Grant(email=email, refresh_token=refresh_token, client=client)
        return Grant(
            email=email,
            refresh_token=refresh_token,
            access_token=Secret(granted.access_token),
            expires_at=self.clock() + timedelta(seconds=granted.expires_in),
            client=client,
        )

    def account(self, email: str = ANN) -> Account:
        return self.services.accounts.find(email)

    def accounts(self) -> list[Account]:
        return list(self.services.accounts.list())

    def blamed_accounts(self) -> list[Any]:
        """Accounts that are not active, have strikes, or are still leased."""
        return self.query("""
            SELECT email, status, strikes, lease_id FROM mail_credentials
            WHERE status <> 'active' OR strikes > 0 OR struck_at IS NOT NULL OR lease_id IS NOT NULL
        """)

    # Stores

    def cached(self, email: str = ANN) -> CacheEntry | None:
        """The account's entry in Redis, opened."""
        return TokenCache(self.services.cache, Vault(self.settings.keys)).read(account_id(email))

    def stored_secret(self, purpose: Purpose, email: str = ANN) -> str | None:
        """A secret of the account as Postgres stores it, opened."""
        account = self.account(email)
        sealed = account.access_token if purpose is Purpose.ACCESS_TOKEN else account.refresh_token
        if sealed is None:
            return None
        return Vault(self.settings.keys).open(sealed, account.id, purpose, binding_of(account)).reveal()

    def query(self, statement: str, **values: object) -> list[Any]:
        with self.services.database.begin() as connection:
            result = connection.execute(text(statement), values)
            return [tuple(row) for row in result] if result.returns_rows else []

    def lock_accounts(self) -> psycopg.Connection:
        """Lock the table of accounts until the connection is rolled back or closed."""
        url = self.settings.database_url.get_secret_value().replace("postgresql+psycopg://", "postgresql://")
        connection = psycopg.connect(url)
        connection.execute("LOCK TABLE mail_credentials")
        return connection

    def blocked_statements(self) -> int:
        """The number of statements that wait for a lock in Postgres."""
        [(count,)] = self.query("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return int(count)

    # Microsoft

    @property
    def requests(self) -> int:
        """The number of token requests that Microsoft has received."""
        return self.emulator.statistics().requests

    def requests_during(self, work: Callable[[], object]) -> int:
        """The number of token requests that ``work`` causes."""
        before = self.requests
        work()
        return self.requests - before

    @contextmanager
    def in_flight(self, work: Callable[[], T], *, responses: int = 1) -> Iterator[Future[T]]:
        """Run ``work`` in a thread. Inside the block so many of Microsoft's responses to it are held back."""
        held = self.relay.hold(responses)
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(work)
            try:
                assert held.ready.wait(HANG_LIMIT)
                yield result
            finally:
                held.released.set()

    def reject_secret(self) -> None:
        """Microsoft no longer accepts the client secret of the settings."""
        self.emulator.registrations.register(Registration(secrets=("another-secret",)))

    def accept_secret(self) -> None:
        self.emulator.registrations.register(Registration())

    @property
    def requests_until_open(self) -> int:
        """The most requests that are sent before a breaker opens: those that open it, and those in flight by then."""
        return self.settings.connections + FAILING_ACCOUNTS

    def breaker_rows(self) -> list[Any]:
        return self.query("SELECT failures, failure_code, open_until FROM oauth_clients")

    # Logs

    def logged(self, event: str) -> list[str]:
        """The account of each log line with this event, in order."""
        return [entry["email"] for entry in self.logs if entry["event"] == event]
