"""Accounts that are erased for good, or move to another address. Callers own the transaction."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from worker.db.rows import FREE
from worker.domain.account import Account, AccountId


def delete(connection: Connection, accounts: Sequence[AccountId]) -> list[AccountId]:
    """Delete the rows of accounts and their events. Returns the accounts that were stored."""
    given = {"ids": list(accounts)}
    for table in _event_tables(connection):
        connection.execute(text(f"DELETE FROM {table} WHERE account_id = ANY(CAST(:ids AS uuid[]))"), given)
    statement = text("DELETE FROM mail_credentials WHERE id = ANY(CAST(:ids AS uuid[])) RETURNING id")
    return [AccountId(id_) for id_ in connection.execute(statement, given).scalars()]


def move(connection: Connection, old: Account, new: Account, *, now: datetime) -> bool:
    """Give the account the address, the id and the sealed tokens of ``new``, and its events along.

    False if it has changed since it was read, or a process holds a lease.
    """
    statement = text(f"""
        UPDATE mail_credentials
        SET id = :new_id, email = :email, access_token = :access_token, refresh_token = :refresh_token,
            version = version + 1, lease_id = NULL, lease_until = NULL, updated_at = :now
        WHERE id = :id AND version = :version AND {FREE}
    """)
    values = {
        "id": old.id,
        "version": old.version,
        "new_id": new.id,
        "email": new.email,
        "access_token": new.access_token,
        "refresh_token": new.refresh_token,
        "now": now,
    }
    if connection.execute(statement, values).rowcount == 0:
        return False
    for table in _event_tables(connection):
        events = text(f"UPDATE {table} SET account_id = :new_id WHERE account_id = :id")
        connection.execute(events, {"id": old.id, "new_id": new.id})
    return True


def _event_tables(connection: Connection) -> Sequence[str]:
    """The table of events, and that of the time before its partitions, until the last of its rows is too old."""
    old = connection.execute(text("SELECT to_regclass('refresh_events_old') IS NOT NULL")).scalar_one()
    return ("refresh_events", "refresh_events_old") if old else ("refresh_events",)
