"""The breakers of app registrations, which all workers share."""

from datetime import datetime

from sqlalchemy import Connection, RowMapping, text

from worker.domain.account import AccountId
from worker.domain.breaker import Breaker
from worker.domain.outcome import Kind

_COLUMNS = "name, suspects, failure_kind, failure_code, failures, open_until, closed_at"


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
                open_until = :open_until, closed_at = :closed_at, updated_at = :now
            WHERE name = :name
        """),
        {
            "name": breaker.client,
            "suspects": list(breaker.failing_accounts),
            "kind": breaker.kind,
            "code": breaker.code,
            "failures": breaker.failures,
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


def _breaker(row: RowMapping) -> Breaker:
    return Breaker(
        client=row["name"],
        failing_accounts=frozenset(AccountId(account) for account in row["suspects"]),
        kind=row["failure_kind"] and Kind(row["failure_kind"]),
        code=row["failure_code"],
        failures=row["failures"],
        open_until=row["open_until"],
        closed_at=row["closed_at"],
    )
