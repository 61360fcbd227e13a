"""Tokens that had to wait for the database, and how they are stored late. Callers own the transaction."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256

from sqlalchemy import Connection, text

from worker.db.rows import FORGIVEN, Columns
from worker.domain.account import AccountId
from worker.domain.secret import Sealed

# The lease they were asked under may have run out and been taken over; the holder loses, having spent an older token.
# An operator may have paused or resumed the account: then only the state is theirs, if the token that is stored is one
# that was spent. A sign-in has replaced that one. What was re-sealed since goes by its version alone.
_LATE = Columns(
    {
        "account_id": "uuid",
        "base": "bigint",
        "version": "bigint",
        "spent": "bytea",
        "access_token": "bytea",
        "refresh_token": "bytea",
        "previous_refresh_token": "bytea",
        "obtained_at": "timestamptz",
        "expires_at": "timestamptz",
        "due_at": "timestamptz",
    }
)
_RESTORE = text(f"""
    UPDATE mail_credentials AS c
    SET access_token = n.access_token, token_obtained_at = n.obtained_at, token_expiry = n.expires_at,
        refresh_token = coalesce(n.refresh_token, c.refresh_token),
        previous_refresh_token = coalesce(n.previous_refresh_token, c.previous_refresh_token),
        refresh_token_issued_at =
            CASE WHEN n.refresh_token IS NULL THEN c.refresh_token_issued_at ELSE n.obtained_at END,
        last_refreshed_at = n.obtained_at, version = greatest(n.version, c.version + 1),
        status_changed_at = CASE WHEN c.status IN ('active', 'paused') THEN c.status_changed_at ELSE :now END,
        status = CASE WHEN c.status = 'paused' THEN c.status ELSE 'active' END,
        refresh_due_at = CASE WHEN c.use_oauth AND c.status <> 'paused' THEN n.due_at END,
        lease_id = NULL, lease_until = NULL,
        {FORGIVEN}, updated_at = :now
    FROM {_LATE}
    WHERE c.id = n.account_id AND c.status <> 'disconnected'
      AND (c.version = n.base AND c.status <> 'paused' OR position(sha256(c.refresh_token) IN n.spent) > 0)
    RETURNING c.id, c.version
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingResult:
    """New tokens that make ``version``, if what is stored is still ``base`` or has a refresh token that was ``spent``:
    the marks of all that were replaced on the way here, one after the other."""

    account_id: AccountId
    email: str
    base: int
    version: int
    spent: bytes
    access_token: Sealed
    refresh_token: Sealed | None
    previous_refresh_token: Sealed | None
    obtained_at: datetime
    expires_at: datetime
    due_at: datetime


def mark(token: Sealed) -> bytes:
    """By which a stored token is known again without being kept: no two seals are alike."""
    return sha256(token).digest()


def hold(connection: Connection, accounts: Collection[AccountId]) -> set[AccountId]:
    """Lock the accounts' rows until the end of the transaction, but wait for nobody: who restores many and others who
    write many would wait for each other. Returns those of ``accounts`` that are locked, or have no row."""
    wanted = {"ids": list(accounts)}
    some = "SELECT id FROM mail_credentials WHERE id = ANY(CAST(:ids AS uuid[]))"
    locked = set(connection.execute(text(f"{some} FOR UPDATE SKIP LOCKED"), wanted).scalars())
    if len(locked) == len(accounts):
        return locked
    return set(accounts) - (set(connection.execute(text(some), wanted).scalars()) - locked)


def restore(connection: Connection, updates: Sequence[PendingResult], *, now: datetime) -> dict[AccountId, int]:
    """Store tokens late, of each account at most once. Returns the versions they have become; where something newer is
    stored there is none."""
    if not updates:
        return {}
    arrays = _LATE.arrays(map(asdict, updates))
    stored = connection.execute(_RESTORE, {**arrays, "now": now})
    return {AccountId(account): version for account, version in stored}
