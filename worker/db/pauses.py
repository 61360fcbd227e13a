"""The groups of accounts that operators have paused. Callers own the transaction."""

from datetime import datetime

from sqlalchemy import Connection, text

from worker.domain.pause import Group, Pause

# Held by each transaction that stores sign-ins, shared, and by one that pauses a group, alone. So a sign-in is either
# committed when the accounts of the group are paused, or it finds the pause.
_LOCK = 0x70617573  # "paus"


def begin(connection: Connection, group: Group, *, now: datetime) -> None:
    """Pause a group for accounts that sign in from now on; a second pause changes nothing."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    connection.execute(
        text("INSERT INTO pauses (client, domain, since) VALUES (:client, :domain, :now) ON CONFLICT DO NOTHING"),
        {**_key(group), "now": now},
    )


def end(connection: Connection, group: Group) -> None:
    """End the pause of a group, if there is one."""
    statement = text("DELETE FROM pauses WHERE client = :client AND domain = :domain")
    connection.execute(statement, _key(group))


def all_pauses(connection: Connection) -> list[Pause]:
    """The pauses, in order of app registration and domain."""
    rows = connection.execute(text("SELECT client, domain, since FROM pauses ORDER BY client, domain")).mappings()
    return [
        Pause(group=Group(client=row["client"] or None, domain=row["domain"] or None), since=row["since"])
        for row in rows
    ]


def all_for_sign_ins(connection: Connection) -> list[Pause]:
    """The pauses; none begins before this transaction ends."""
    connection.execute(text("SELECT pg_advisory_xact_lock_shared(:lock)"), {"lock": _LOCK})
    return all_pauses(connection)


def _key(group: Group) -> dict[str, str]:
    return {"client": group.client or "", "domain": group.domain or ""}
