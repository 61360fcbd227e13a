"""Tokens that had to wait for the database, and how they are stored late. Callers own the transaction."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from worker.db.rows import as_columns
from worker.domain.credential import AccountId, Sealed

# The lease they were asked under may have run out and been taken over; the holder loses, having spent an older token.
_RESTORE = text("""
    UPDATE mail_credentials AS c
    SET access_token = n.access_token, token_obtained_at = n.obtained_at, token_expiry = n.expires_at,
        refresh_token = coalesce(n.refresh_token, c.refresh_token),
        previous_refresh_token = coalesce(n.previous_refresh_token, c.previous_refresh_token),
        refresh_token_issued_at =
            CASE WHEN n.refresh_token IS NULL THEN c.refresh_token_issued_at ELSE n.obtained_at END,
        last_refreshed_at = n.obtained_at, version = n.version,
        status_changed_at = CASE WHEN c.status = 'active' THEN c.status_changed_at ELSE :now END,
        status = 'active',
        refresh_due_at = CASE WHEN c.use_oauth THEN n.due_at END, lease_id = NULL,
        failure_kind = NULL, failure_code = NULL, failure_count = 0, failing_since = NULL, failure_claims = NULL,
        strikes = 0, struck_at = NULL, updated_at = :now
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:bases AS bigint[]), CAST(:versions AS bigint[]),
        CAST(:access_tokens AS bytea[]), CAST(:refresh_tokens AS bytea[]), CAST(:previous_refresh_tokens AS bytea[]),
        CAST(:obtained_ats AS timestamptz[]), CAST(:expires_ats AS timestamptz[]), CAST(:due_ats AS timestamptz[])
    ) AS n(id, base, version, access_token, refresh_token, previous_refresh_token, obtained_at, expires_at, due_at)
    WHERE c.id = n.id AND c.version = n.base AND c.status NOT IN ('paused', 'disconnected')
    RETURNING c.id, c.version
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsavedUpdate:
    """New tokens that make ``version``, if what is stored is still ``base``."""

    account_id: AccountId
    email: str
    base: int
    version: int
    access_token: Sealed
    refresh_token: Sealed | None
    previous_refresh_token: Sealed | None
    obtained_at: datetime
    expires_at: datetime
    due_at: datetime


def hold(connection: Connection, accounts: Collection[AccountId]) -> set[AccountId]:
    """Lock the accounts' rows until the end of the transaction, but wait for nobody: who restores many and others who
    write many would wait for each other. Returns those of ``accounts`` that are locked, or have no row."""
    wanted = {"ids": list(accounts)}
    some = "SELECT id FROM mail_credentials WHERE id = ANY(CAST(:ids AS uuid[]))"
    locked = set(connection.execute(text(f"{some} FOR UPDATE SKIP LOCKED"), wanted).scalars())
    if len(locked) == len(accounts):
        return locked
    return set(accounts) - (set(connection.execute(text(some), wanted).scalars()) - locked)


def restore(connection: Connection, updates: Sequence[UnsavedUpdate], *, now: datetime) -> dict[AccountId, int]:
    """Store tokens late, of each account at most once. Returns the versions they have become; where something newer is
    stored there is none."""
    if not updates:
        return {}
    arrays = as_columns(
        {
            "ids": update.account_id,
            "bases": update.base,
            "versions": update.version,
            "access_tokens": update.access_token,
            "refresh_tokens": update.refresh_token,
            "previous_refresh_tokens": update.previous_refresh_token,
            "obtained_ats": update.obtained_at,
            "expires_ats": update.expires_at,
            "due_ats": update.due_at,
        }
        for update in updates
    )
    stored = connection.execute(_RESTORE, {**arrays, "now": now})
    return {AccountId(account): version for account, version in stored}
