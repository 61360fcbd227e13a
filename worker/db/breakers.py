"""The breakers of app registrations, which all workers share."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, RowMapping, text

from worker.domain.account import AccountId
from worker.domain.breaker import Breaker
from worker.domain.outcome import Kind

# A program that does not know ``opened_at`` may have opened or closed the breaker.
_COLUMNS = """
    name, suspects, failure_kind, failure_code, failures, open_until, closed_at,
    CASE WHEN open_until IS NOT NULL THEN coalesce(opened_at, open_until) END AS opened_at
"""


def find(connection: Connection, client: str) -> Breaker:
    """The registration's breaker; a clean one if none is stored."""
    row = connection.execute(text(f"SELECT {_COLUMNS} FROM oauth_clients WHERE name = :name"), {"name": client})
    found = row.mappings().first()
    return _breaker(found) if found else Breaker(client=client)


def all_breakers(connection: Connection) -> list[Breaker]:
    """Every breaker that was ever stored."""
    rows = connection.execute(text(f"SELECT {_COLUMNS} FROM oauth_clients ORDER BY name"))
    return [_breaker(row) for row in rows.mappings()]


def lock(connection: Connection, client: str, *, now: datetime) -> Breaker:
    """The breaker, locked against other writers until the transaction ends."""
    connection.execute(
        text("INSERT INTO oauth_clients (name, updated_at) VALUES (:name, :now) ON CONFLICT DO NOTHING"),
        {"name": client, "now": now},
    )
    row = connection.execute(
        text(f"SELECT {_COLUMNS} FROM oauth_clients WHERE name = :name FOR UPDATE"), {"name": client}
    )
    return _breaker(row.mappings().one())


def store(connection: Connection, breaker: Breaker, *, now: datetime) -> None:
    """Write a locked breaker back."""
    connection.execute(
        text("""
            UPDATE oauth_clients
            SET suspects = CAST(:suspects AS uuid[]), failure_kind = :kind, failure_code = :code, failures = :failures,
                opened_at = :opened_at, open_until = :open_until, closed_at = :closed_at, updated_at = :now
            WHERE name = :name
        """),
        {
            "name": breaker.client,
            "suspects": list(breaker.failing_accounts),
            "kind": breaker.kind,
            "code": breaker.code,
            "failures": breaker.failures,
            "opened_at": breaker.opened_at,
            "open_until": breaker.open_until,
            "closed_at": breaker.closed_at,
            "now": now,
        },
    )


def take_probe(connection: Connection, client: str, *, until: datetime, now: datetime) -> bool:
    """Take the right to send the one probe; if its sender dies, the next may be sent from ``until`` on."""
    statement = text("""
        UPDATE oauth_clients SET open_until = :until, updated_at = :now
        WHERE name = :name AND open_until <= :now
    """)
    return connection.execute(statement, {"name": client, "until": until, "now": now}).rowcount == 1


def end_wait(connection: Connection, client: str, *, now: datetime) -> None:
    """Let the next process that asks take the probe at once."""
    statement = text(
        "UPDATE oauth_clients SET open_until = :now, updated_at = :now WHERE name = :name AND open_until > :now"
    )
    connection.execute(statement, {"name": client, "now": now})


def release_probe(connection: Connection, client: str, *, until: datetime, now: datetime) -> None:
    """Release the right, if the breaker has not changed since."""
    statement = text("""
        UPDATE oauth_clients SET open_until = :now, updated_at = :now
        WHERE name = :name AND open_until = :until
    """)
    connection.execute(statement, {"name": client, "until": until, "now": now})


def admit_sign_in(connection: Connection, client: str, *, interval: timedelta, now: datetime) -> bool:
    """Take the right to refresh one new sign-in although the breaker is open; once per ``interval``."""
    statement = text("""
        UPDATE oauth_clients SET sign_in_admitted_at = :now, updated_at = :now
        WHERE name = :name AND (sign_in_admitted_at > :recently) IS NOT TRUE
    """)
    return connection.execute(statement, {"name": client, "recently": now - interval, "now": now}).rowcount == 1


def _breaker(row: RowMapping) -> Breaker:
    return Breaker(
        client=row["name"],
        failing_accounts=tuple(AccountId(account) for account in row["suspects"]),
        kind=row["failure_kind"] and Kind(row["failure_kind"]),
        code=row["failure_code"],
        failures=row["failures"],
        opened_at=row["opened_at"],
        open_until=row["open_until"],
        closed_at=row["closed_at"],
    )
