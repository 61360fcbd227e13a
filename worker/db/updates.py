"""Writing the results of refreshes back. Callers own the transaction."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from worker.db.columns import Columns
from worker.domain.account import AccountId
from worker.domain.account_update import AccountUpdate

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
    }
)

# Compare-and-swap. A result counts if version and lease are still those that it is based on. New tokens also count
# * if the lease ran out, even if another worker has taken it over: that worker has spent an older refresh token;
# * if an operator has paused or resumed the account: only the state is the operator's. A sign-in has replaced the
#   refresh token that was spent, so its digest tells the two apart. What rotate-keys has sealed again since goes by its
#   version alone.
_PERSIST = text(f"""
    UPDATE mail_credentials AS c
    SET access_token = coalesce(n.access_token, c.access_token),
        token_obtained_at = coalesce(n.obtained_at, c.token_obtained_at),
        token_expiry = coalesce(n.expires_at, c.token_expiry),
        refresh_token = coalesce(n.refresh_token, c.refresh_token),
        refresh_token_issued_at =
            CASE WHEN n.refresh_token IS NULL THEN c.refresh_token_issued_at ELSE n.obtained_at END,
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
    }


def _token(update: AccountUpdate) -> dict[str, Any]:
    return {"id": update.account_id, "access_token": update.access_token}
