"""What the failure tests share: many mailboxes, a look at their rows, and a second process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text

from tests.factories import TurnedClock
from worker.bootstrap import Services
from worker.devkit.emulator import Emulator, OAuthError, Registration, Tampered, oauth_error
from worker.domain.account import DEFAULT_CLIENT, Account, Grant
from worker.domain.breaker import FAILING_ACCOUNTS
from worker.domain.secret import Sealed, Secret
from worker.domain.token import AccessToken
from worker.settings import Settings
from worker.vault import Purpose, Vault

ANN, BOB = "ann@contoso.com", "bob@fabrikam.com"
LIFETIME = timedelta(hours=1)  # of an access token, in tests of what happens when it ends
ANOTHER_SECRET = "another-secret"


@dataclass(frozen=True)
class GrantWith(Tampered):
    """No change to the answer: something else happens after the grant, before the answer leaves."""

    meanwhile: Callable[[], object] = field(kw_only=True)

    def bend(self, document: Mapping[str, object]) -> dict[str, object]:
        self.meanwhile()
        return super().bend(document)


@dataclass(frozen=True)
class RefusalWith(OAuthError):
    """Likewise, before a refusal leaves."""

    meanwhile: Callable[[], object] = field(kw_only=True)

    def body(self, *, now: datetime, base_url: str, correlation_id: str) -> bytes:
        self.meanwhile()
        return super().body(now=now, base_url=base_url, correlation_id=correlation_id)


def refusal_with(code: str, meanwhile: Callable[[], object]) -> RefusalWith:
    usual = oauth_error(code)
    return RefusalWith(**{each.name: getattr(usual, each.name) for each in fields(usual)}, meanwhile=meanwhile)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailboxes:
    """The users of one installation, seen through one of its processes."""

    services: Services
    emulator: Emulator
    clock: TurnedClock
    settings: Settings

    def sign_in(self, *emails: str, client: str = DEFAULT_CLIENT, **terms: Any) -> None:
        """The application stores a grant without an access token: it is due at once. ``terms`` are Microsoft's."""
        grants = [self.emulator.enrol(email, **terms) for email in emails]
        self.services.accounts.save(
            [Grant(email=grant.email, refresh_token=Secret(grant.refresh_token), client=client) for grant in grants]
        )

    def refresh_due(self, client: str = DEFAULT_CLIENT) -> dict[str, int]:
        return self.services.refresher.refresh_due(client)

    def account(self, email: str) -> Account:
        return self.services.accounts.find(email)

    def accounts(self) -> list[Account]:
        return list(self.services.accounts.list())

    def query(self, statement: str, **values: object) -> list[Any]:
        with self.services.database.begin() as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def stored_refresh_token(self, email: str) -> str:
        account = self.account(email)
        assert account.refresh_token is not None
        return self.open(account, account.refresh_token, Purpose.REFRESH_TOKEN)

    def open(self, account: Account, sealed: Sealed, purpose: Purpose) -> str:
        return Vault(self.settings.keys).open(sealed, account.id, purpose).reveal()

    @property
    def requests(self) -> int:
        return self.emulator.statistics().requests

    def asked(self, work: Callable[[], object]) -> int:
        """How many questions Microsoft gets while this is done."""
        before = self.requests
        work()
        return self.requests - before

    @property
    def handful(self) -> int:
        """As many as may be under way when the breaker opens, and those that open it."""
        return self.settings.connections + FAILING_ACCOUNTS

    def breakers(self) -> list[tuple[object, ...]]:
        rows = self.query("SELECT failures, failure_code, open_until FROM oauth_clients")
        return [tuple(row) for row in rows]

    def refuse_the_secret(self) -> None:
        self.emulator.registrations.register(Registration(secrets=(ANOTHER_SECRET,)))

    def take_the_secret(self) -> None:
        self.emulator.registrations.register(Registration())

    def harmed(self) -> list[Any]:
        """Accounts that need somebody, or have something counted against them."""
        return self.query("""
            SELECT email, status, strikes, lease_id FROM mail_credentials
            WHERE status <> 'active' OR strikes > 0 OR struck_at IS NOT NULL OR lease_id IS NOT NULL
        """)


def emails(number: int, domain: str = "contoso.com") -> list[str]:
    return [f"user{serial:03}@{domain}" for serial in range(number)]


def read(services: Services, email: str = ANN) -> AccessToken:
    return services.tokens.get(email)
