"""Leases on accounts, and the results that are written under them. Callers own the transaction."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from worker.db.rows import FREE, Columns, as_dicts, as_failure, as_mail, stored_type
from worker.domain.account import AccountId, Lease, LeaseId, Status
from worker.domain.client_type import ClientType
from worker.domain.policy import LONG_OVERDUE, AccountUpdate
from worker.domain.token import Sealed

#: The columns that ``as_lease`` reads, of the table with the alias ``c``.
LEASE_COLUMNS = """
    c.id, c.email, c.client, c.authority, c.scopes, c.refresh_token, c.version, c.status,
    c.failure_kind, c.failure_code, c.failure_count, c.failing_since, c.strikes, c.struck_at,
    c.imap_host, c.imap_port, c.smtp_host, c.smtp_port, c.pop_host, c.pop_port, c.login_name, c.client_type
"""

# Rows are joined by ctid, the place of a row: a locked row cannot move, and the primary key would cost a look-up. A
# row that moved between snapshot and lock is left to the next batch.
_LEASE_DUE = text(f"""
    WITH due AS (
        SELECT ctid, refresh_due_at FROM mail_credentials
        WHERE client = :client AND refresh_due_at <= :now AND {FREE}
        ORDER BY refresh_due_at           -- after an outage the longest overdue accounts come first
        LIMIT :limit
        FOR UPDATE SKIP LOCKED            -- another worker is leasing those
    )
    UPDATE mail_credentials AS c
    SET lease_id = :lease_id, lease_until = :lease_until
    FROM due WHERE c.ctid = due.ctid
    RETURNING {LEASE_COLUMNS}, (
        c.last_refreshed_at IS NULL OR c.last_refreshed_at < c.signed_in_at OR due.refresh_due_at < :long_ago
    ) IS TRUE AS unscheduled            -- new, or kept waiting by an outage
""")

_LEASE_ONE = text(f"""
    UPDATE mail_credentials AS c
    SET lease_id = :lease_id, lease_until = :lease_until
    WHERE c.id = :id AND c.use_oauth AND c.refresh_token IS NOT NULL
      AND c.status IN ('active', 'reauth_required', 'blocked')
      AND c.version = :version                                -- else it was refreshed since the caller read it
      AND (c.refresh_due_at IS NOT DISTINCT FROM CAST(:seen_due_at AS timestamptz)  -- else a refresh has failed since
           OR c.refresh_due_at >= '3000-01-01')               -- no worker's value; it was read as something else
      AND {FREE}                                              -- else another process is refreshing it
    RETURNING {LEASE_COLUMNS}
""")

_COUNT_DUE = text(f"""
    SELECT count(*) FROM (
        SELECT 1 FROM mail_credentials WHERE client = :client AND refresh_due_at <= :now AND {FREE} LIMIT :limit
    ) AS due
""")

# Locks no row. A read-only server refuses it, as it would refuse a lease.
_CHECK_WRITABLE = text("SELECT FROM mail_credentials LIMIT 0 FOR UPDATE")

_RELEASED = Columns({"id": "uuid", "version": "bigint", "lease_id": "uuid", "due_at": "timestamptz"})
_RELEASE = text(f"""
    UPDATE mail_credentials AS c SET lease_id = NULL, lease_until = NULL, refresh_due_at = n.due_at FROM {_RELEASED}
    WHERE c.id = n.id AND c.version = n.version AND c.lease_id = n.lease_id
""")

_SET_ASIDE = text("""
    UPDATE mail_credentials
    SET status = 'unreadable', status_changed_at = :now, refresh_due_at = NULL,
        lease_id = NULL, lease_until = NULL, failure_kind = 'unreadable', failure_code = :code,
        failure_count = failure_count + 1, failing_since = :now, updated_at = :now
    WHERE id = :id AND version = :version AND lease_id = :lease_id
""")


def lease_due(
    connection: Connection,
    *,
    client: str,
    lease_id: LeaseId,
    limit: int,
    lease: timedelta,
    now: datetime,
    in_backlog: bool = False,
) -> list[Lease]:
    """Lease up to ``limit`` due accounts of one app registration until ``now + lease``.

    ``in_backlog``: more accounts are due than fit into a batch; the unscheduled ones among them are marked as such.
    """
    until = now + lease
    values = {"lease_id": lease_id, "lease_until": until, "now": now, "long_ago": now - LONG_OVERDUE}
    rows = as_dicts(connection.execute(_LEASE_DUE, {"client": client, "limit": limit, **values}))
    return [as_lease(row, lease_id, until, in_backlog=row["unscheduled"] and in_backlog) for row in rows]


def lease_one(
    connection: Connection,
    account: AccountId,
    *,
    version: int,
    due_at: datetime | None,
    lease_id: LeaseId,
    lease: timedelta,
    now: datetime,
) -> Lease | None:
    """Lease one account, due or not; None if it has changed since it was read, is leased, or may not be refreshed."""
    seen, until = {"version": version, "seen_due_at": due_at}, now + lease
    rows = connection.execute(
        _LEASE_ONE, {"id": account, **seen, "lease_id": lease_id, "lease_until": until, "now": now}
    )
    found = rows.mappings().first()
    return as_lease(found, lease_id, until) if found else None


def count_due(connection: Connection, *, client: str, limit: int, now: datetime) -> int:
    """How many accounts of one app registration are due, counting no further than ``limit``."""
    return int(connection.execute(_COUNT_DUE, {"client": client, "now": now, "limit": limit}).scalar_one())


def check_writable(connection: Connection) -> None:
    """Make a read-only server refuse the transaction, although nothing is written."""
    connection.execute(_CHECK_WRITABLE)


def release(connection: Connection, waits: Mapping[Lease, timedelta], *, now: datetime) -> None:
    """End leases without a result. Each account is due again after its wait."""
    arrays = _RELEASED.arrays(
        {"id": lease.account_id, "version": lease.version, "lease_id": lease.lease_id, "due_at": now + wait}
        for lease, wait in waits.items()
    )
    connection.execute(_RELEASE, arrays)


def set_aside(connection: Connection, lease: Lease, *, code: str, now: datetime) -> bool:
    """Mark an account whose refresh token does not open as unreadable. The ciphertext stays: the key may come back."""
    values = {"id": lease.account_id, "version": lease.version, "lease_id": lease.lease_id, "code": code, "now": now}
    return connection.execute(_SET_ASIDE, values).rowcount == 1


def as_lease(row: Mapping[Any, Any], lease_id: LeaseId, until: datetime, *, in_backlog: bool = False) -> Lease:
    """The lease that a row has just got."""
    return Lease(
        account_id=AccountId(row["id"]),
        email=row["email"],
        client=row["client"],
        authority=row["authority"],
        scopes=tuple(row["scopes"].split()),
        refresh_token=Sealed(bytes(row["refresh_token"])),
        version=row["version"],
        lease_id=lease_id,
        lease_until=until,
        status=Status(row["status"]),
        failure=as_failure(row),
        strikes=row["strikes"],
        struck_at=row["struck_at"],
        in_backlog=in_backlog,
        mail=as_mail(row),
        client_type=ClientType(row["client_type"]) if row["client_type"] else ClientType.CONFIDENTIAL,
    )


_UPDATE = Columns(
    {
        "id": "uuid",
        "based_on": "bigint",
        "lease_id": "uuid",
        "access_token": "bytea",
        "obtained_at": "timestamptz",
        "expires_at": "timestamptz",
        "refresh_token": "bytea",
        "replaces": "bytea",
        "status": "text",
        "due_at": "timestamptz",
        "failure_kind": "text",
        "failure_code": "text",
        "failure_count": "int",
        "failing_since": "timestamptz",
        "failure_claims": "text",
        "strikes": "int",
        "struck_at": "timestamptz",
        "aged_out": "boolean",
        "client_type": "text",
    }
)

# Compare-and-swap. A result counts if version and lease are still those that it is based on. New tokens also count
# * if the lease ran out, even if another worker has taken it over: that worker has spent an older refresh token;
# * if an operator has paused or resumed the account: only the state is the operator's. A sign-in would have replaced
#   the spent refresh token, so its digest shows which of the two happened. A token that rotate-keys has sealed again
#   since goes by its version alone.
_PERSIST = text(f"""
    UPDATE mail_credentials AS c
    SET access_token = coalesce(n.access_token, c.access_token),
        token_obtained_at = coalesce(n.obtained_at, c.token_obtained_at),
        token_expiry = coalesce(n.expires_at, c.token_expiry),
        refresh_token = coalesce(n.refresh_token, c.refresh_token),
        refresh_token_issued_at =
            CASE WHEN n.refresh_token IS NULL THEN c.refresh_token_issued_at ELSE n.obtained_at END,
        client_type = CASE WHEN n.access_token IS NULL THEN c.client_type ELSE n.client_type END,
        last_refreshed_at = coalesce(n.obtained_at, c.last_refreshed_at),
        version = c.version + CASE WHEN n.access_token IS NULL THEN 0 ELSE 1 END,
        status_changed_at = CASE WHEN c.status IN (n.status, 'paused') THEN c.status_changed_at ELSE :now END,
        status = CASE WHEN c.status = 'paused' THEN c.status ELSE n.status END,
        refresh_due_at = CASE WHEN c.use_oauth AND c.status <> 'paused' THEN n.due_at END,
        lease_id = NULL, lease_until = NULL,
        failure_kind = n.failure_kind, failure_code = n.failure_code, failure_count = coalesce(n.failure_count, 0),
        failing_since = n.failing_since, failure_claims = n.failure_claims,
        strikes = coalesce(n.strikes, 0), struck_at = n.struck_at,
        grant_lifetime = CASE WHEN n.aged_out THEN :now - c.signed_in_at ELSE c.grant_lifetime END,
        updated_at = :now
    FROM {_UPDATE}
    WHERE c.id = n.id AND (
        c.version = n.based_on AND c.lease_id = n.lease_id
        OR n.access_token IS NOT NULL AND c.status <> 'disconnected'
           AND (c.version = n.based_on AND c.status <> 'paused' OR sha256(c.refresh_token) = n.replaces)
    )
    RETURNING n.number, c.version
""")

_STORED = Columns({"id": "uuid", "access_token": "bytea"})
_FIND_STORED = text(f"""
    SELECT c.id, c.version FROM mail_credentials AS c
    JOIN {_STORED} ON c.id = n.id AND c.access_token = n.access_token
""")


def persist(connection: Connection, updates: Sequence[AccountUpdate], *, now: datetime) -> dict[AccountId, int]:
    """Write updates, of each account at most one. Returns the new versions of the rows that were written."""
    rows = connection.execute(_PERSIST, {**_UPDATE.arrays(map(_row, updates)), "now": now}).all()
    return {updates[number - 1].account_id: version for number, version in rows}


def find_stored(connection: Connection, updates: Sequence[AccountUpdate]) -> dict[AccountId, int]:
    """The versions of the rows that hold an update's access token already: no two seals are alike."""
    rows = connection.execute(_FIND_STORED, _STORED.arrays(map(_token, updates)))
    return {AccountId(account): version for account, version in rows}


def lock(connection: Connection, accounts: Collection[AccountId]) -> set[AccountId]:
    """Lock rows until the end of the transaction. Returns the accounts whose row is locked.

    A row that another transaction holds is left out: two that write many rows in different orders would wait for each
    other.
    """
    statement = text("SELECT id FROM mail_credentials WHERE id = ANY(CAST(:ids AS uuid[])) FOR UPDATE SKIP LOCKED")
    return set(connection.execute(statement, {"ids": list(accounts)}).scalars())


def _row(update: AccountUpdate) -> dict[str, Any]:
    failure = update.failure
    return {
        "id": update.account_id,
        "based_on": update.based_on,
        "lease_id": update.lease_id,
        "access_token": update.access_token,
        "obtained_at": update.obtained_at,
        "expires_at": update.expires_at,
        "refresh_token": update.refresh_token,
        "replaces": update.replaces,
        "status": update.status.value,
        "due_at": update.due_at,
        "failure_kind": failure and failure.kind,
        "failure_code": failure and failure.code,
        "failure_count": failure and failure.count,
        "failing_since": failure and failure.since,
        "failure_claims": update.claims,
        "strikes": update.strikes or None,
        "struck_at": update.struck_at,
        "aged_out": update.aged_out or None,
        "client_type": stored_type(update.client_type),
    }


def _token(update: AccountUpdate) -> dict[str, Any]:
    return {"id": update.account_id, "access_token": update.access_token}
