"""The statements about accounts, each in a transaction of its own as the services run them, and values for their
arguments."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, TypeAlias
from uuid import uuid4

from sqlalchemy import text

from tests.constants import ANN, HOUR
from tests.factories import NOW
from worker.db import accounts, leases
from worker.db import grants as incoming
from worker.db.grants import SealedGrant
from worker.db.session import Database
from worker.domain.account import MICROSOFT, Account, AccountId, Failure, Grant, Lease, LeaseId, Status, account_id
from worker.domain.policy import AccountUpdate
from worker.domain.token import Sealed, Secret

LEASE = timedelta(minutes=2)
FAILURE = Failure(kind="transient", code="http_503", count=2, since=NOW - timedelta(minutes=3))


@dataclass(frozen=True, slots=True)
class Rows:
    database: Database

    def save(self, *grants: SealedGrant, now: datetime = NOW) -> dict[AccountId, int]:
        with self.database.begin() as connection:
            stored = accounts.find_many(connection, [grant.account_id for grant in grants])
            return incoming.save(connection, grants, stored=stored, now=now)

    def lease_due(self, *, client: str = "default", limit: int = 10, now: datetime = NOW, **how: bool) -> list[Lease]:
        with self.database.begin() as connection:
            return leases.lease_due(
                connection, client=client, lease_id=new_lease(), limit=limit, lease=LEASE, now=now, **how
            )

    def lease_one(self, email: str = ANN, *, version: int = 1, now: datetime = NOW) -> Lease | None:
        with self.database.begin() as connection:
            seen = accounts.find(connection, account_id(email))
            return leases.lease_one(
                connection,
                account_id(email),
                version=version,
                due_at=seen.due_at if seen else None,
                lease_id=new_lease(),
                lease=LEASE,
                now=now,
            )

    def persist(self, *written: AccountUpdate, now: datetime = NOW) -> dict[AccountId, int]:
        with self.database.begin() as connection:
            return leases.persist(connection, written, now=now)

    def set_status(self, status: Status, *, due_at: datetime | None = None, email: str = ANN) -> list[AccountId]:
        with self.database.begin() as connection:
            return accounts.set_status(connection, [account_id(email)], status, due_at=due_at, now=NOW)

    def take_over(self) -> None:
        """The lease has expired, and another worker leases the account."""
        self.lease_due(now=NOW + LEASE)

    def sign_in(self) -> None:
        self.save(grant(refresh_token=Sealed(b"of a new sign-in")))

    def pause(self) -> None:
        self.set_status(Status.PAUSED)

    def disconnect(self) -> None:
        with self.database.begin() as connection:
            accounts.set_status(connection, [account_id(ANN)], Status.DISCONNECTED, due_at=None, now=NOW)
            accounts.erase_tokens(connection, [account_id(ANN)])

    def leave_oauth(self, email: str = ANN) -> None:
        """The mail product does this when a mailbox changes back to a password."""
        statement = "UPDATE mail_credentials SET use_oauth = false, refresh_due_at = NULL WHERE email = :email"
        self.sql(statement, email=email)

    def find(self, email: str = ANN) -> Account:
        with self.database.begin() as connection:
            account = accounts.find(connection, account_id(email))
        assert account is not None
        return account

    def row(self, email: str = ANN) -> dict[str, Any]:
        """Every column, as it is stored."""
        with self.database.begin() as connection:
            found = connection.execute(text("SELECT * FROM mail_credentials WHERE email = :email"), {"email": email})
            return dict(found.mappings().one())

    def sql(self, statement: str, **values: Any) -> list[Any]:
        with self.database.begin() as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []


#: An event that may happen to Ann's account while a worker waits for Microsoft's response.
Overtake: TypeAlias = Callable[[Rows], None]


def new_lease() -> LeaseId:
    return LeaseId(uuid4())


def grant(email: str = ANN, *, expires_at: datetime | None = NOW + HOUR, **changes: Any) -> SealedGrant:
    """The grant that a sign-in stores. It is due at once unless ``changes`` say otherwise."""
    sealed = SealedGrant(
        account_id=account_id(email),
        grant=Grant(email=email, refresh_token=Secret("kept out of the table"), expires_at=expires_at),
        mail=MICROSOFT,
        refresh_token=Sealed(b"refresh 1"),
        access_token=Sealed(b"access 1"),
        obtained_at=NOW,
        issued_at=NOW,
        due_at=NOW,
    )
    return replace(sealed, **changes)


def refreshed(lease: Lease, **changes: Any) -> AccountUpdate:
    """The update that is written after a response with new tokens."""
    update = replace(
        _update(lease),
        due_at=NOW + 1.6 * HOUR,
        access_token=Sealed(b"access 2"),
        obtained_at=NOW + HOUR,
        expires_at=NOW + 2 * HOUR,
        refresh_token=Sealed(b"refresh 2"),
        replaces=sha256(lease.refresh_token).digest(),
    )
    return replace(update, **changes)


def late(lease: Lease, **changes: Any) -> AccountUpdate:
    """The same update, delivered by the outbox."""
    return refreshed(lease, lease_id=None, **changes)


def failed(lease: Lease, **changes: Any) -> AccountUpdate:
    """The update that is written after a response without tokens."""
    return replace(_update(lease), **{"due_at": NOW + timedelta(seconds=30), "failure": FAILURE, **changes})


def _update(lease: Lease) -> AccountUpdate:
    return AccountUpdate(
        account_id=lease.account_id,
        email=lease.email,
        based_on=lease.version,
        lease_id=lease.lease_id,
        status=Status.ACTIVE,
        due_at=NOW,
    )
