"""Trials of the doctor in Postgres: the state of the server, and writes in a transaction that is rolled back."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from worker.db import breakers, events, grants, leases, pauses
from worker.db.events import RefreshEvent, Success
from worker.db.grants import SealedGrant
from worker.domain.account import MICROSOFT, Grant, LeaseId, account_id
from worker.domain.token import Sealed, Secret

OLDEST_VERSION = 14  #: of Postgres

#: The rights on tables that a worker needs.
PRIVILEGES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "alembic_version": ("SELECT",),
        "audit_events": ("SELECT", "INSERT", "DELETE"),
        "fleet": ("SELECT",),
        "mail_credentials": ("SELECT", "INSERT", "UPDATE"),
        "oauth_clients": ("SELECT", "INSERT", "UPDATE"),
        "pauses": ("SELECT",),
        "refresh_events": ("SELECT", "INSERT"),
        "refresh_successes": ("SELECT", "INSERT"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresServer:
    """The server at the other end of a connection, and the rights of its user."""

    version: int
    database: str
    role: str
    is_standby: bool
    is_read_only: bool


def server(connection: Connection) -> PostgresServer:
    row = connection.execute(
        text("""
            SELECT current_setting('server_version_num')::int / 10000, current_database(), current_user,
                   pg_is_in_recovery(), current_setting('transaction_read_only')::boolean
        """)
    ).one()
    return PostgresServer(
        version=row[0],
        database=row[1],
        role=row[2],
        is_standby=row[3],
        is_read_only=row[4],
    )


def missing_privileges(connection: Connection) -> dict[str, list[str]]:
    """For each table the rights that this user lacks."""
    statement = text("SELECT has_table_privilege(CAST(:table AS text), :privilege)")
    missing: dict[str, list[str]] = {}
    for table, privileges in PRIVILEGES.items():
        for privilege in privileges:
            if not connection.execute(statement, {"table": table, "privilege": privilege}).scalar_one():
                missing.setdefault(table, []).append(privilege)
    return missing


def try_writes(connection: Connection, *, now: datetime) -> None:
    """Store, lease and release an account, write events and make their partitions. The caller must roll back."""
    client = f"doctor-{uuid4()}"  # no other account has this app registration, so no lock meets another process
    email = f"{client}@invalid"
    pauses.all_for_sign_ins(connection)
    grants.save(connection, [_sealed_grant(client, email, now)], stored=(), now=now)
    leased = leases.lease_due(
        connection, client=client, lease_id=LeaseId(UUID(int=1)), limit=1, lease=timedelta(minutes=1), now=now
    )
    leases.release(connection, dict.fromkeys(leased, timedelta(0)), now=now)
    events.record(connection, [_event(email, now)])
    breakers.store(connection, breakers.lock(connection, client, now=now), now=now)
    success = Success(account_id(email), client, now, 0)
    events.record_successes(connection, [success], trigger="schedule")
    events.maintain(connection, event_days=36_500, success_days=36_500, now=now)  # last, for its locks


def _sealed_grant(client: str, email: str, now: datetime) -> SealedGrant:
    return SealedGrant(
        account_id=account_id(email),
        grant=Grant(email=email, refresh_token=Secret(""), client=client),
        mail=MICROSOFT,
        refresh_token=Sealed(b"none"),
        access_token=None,
        issued_at=now,
        obtained_at=None,
        due_at=now,
    )


def _event(email: str, now: datetime) -> RefreshEvent:
    return RefreshEvent(
        account_id=account_id(email),
        at=now,
        client="doctor",
        trigger="operator",
        outcome="refreshed",
        code="ok",
        latency_ms=0,
        correlation_id=None,
        fingerprint_before="",
        fingerprint_after=None,
    )
