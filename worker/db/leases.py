"""Claims on accounts: leasing what is due, writing back what was spent. Callers own the transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from worker.db.late_writes import PendingResult, mark
from worker.db.rows import FREE, Columns, as_dicts, as_failure, as_mail
from worker.domain.account import AccountId, Failure, Lease, LeaseId, Status
from worker.domain.policy import LONG_OVERDUE
from worker.domain.secret import Sealed

_CLAIM_COLUMNS = """
    c.id, c.email, c.client, c.authority, c.scopes, c.refresh_token, c.version, c.status,
    c.failure_kind, c.failure_code, c.failure_count, c.failing_since, c.strikes, c.struck_at,
    c.imap_host, c.imap_port, c.smtp_host, c.smtp_port, c.pop_host, c.pop_port
"""

# By ctid, where a row is: once locked it cannot move, and through the index it would have to be looked for once more.
# What has moved just before that is left to the next claim.
_CLAIM_DUE = text(f"""
    WITH due AS (
        SELECT ctid, refresh_due_at FROM mail_credentials
        WHERE client = :client AND refresh_due_at <= :now AND {FREE}
        ORDER BY refresh_due_at           -- oldest first: after an outage the longest overdue are served first
        LIMIT :limit
        FOR UPDATE SKIP LOCKED            -- a rival's rows are as good as taken
    )
    UPDATE mail_credentials AS c
    SET lease_id = :lease_id, lease_until = :lease_until
    FROM due WHERE c.ctid = due.ctid
    RETURNING {_CLAIM_COLUMNS}, (
        c.last_refreshed_at IS NULL OR c.last_refreshed_at < c.signed_in_at OR due.refresh_due_at < :long_ago
    ) IS TRUE AS out_of_step            -- new, or kept waiting by an outage
""")

_CLAIM_ONE = text(f"""
    UPDATE mail_credentials AS c
    SET lease_id = :lease_id, lease_until = :lease_until
    WHERE c.id = :id AND c.use_oauth AND c.refresh_token IS NOT NULL
      AND c.status IN ('active', 'reauth_required', 'blocked')
      AND c.version = :version                                -- somebody refreshed it since we looked
      AND c.refresh_due_at IS NOT DISTINCT FROM CAST(:seen_due_at AS timestamptz)  -- or was refused
      AND {FREE}                                              -- or is refreshing it now
    RETURNING {_CLAIM_COLUMNS}
""")

# A rival that took over an expired lease, or a sign-in meanwhile, has changed version or lease: then this answer is
# the older one, and is dropped; but for new tokens whose predecessor is what is still stored, see unsaved.restore.
_WRITTEN = Columns(
    {
        "id": "uuid",
        "version": "bigint",
        "lease_id": "uuid",
        "access_token": "bytea",
        "obtained_at": "timestamptz",
        "expires_at": "timestamptz",
        "refresh_token": "bytea",
        "previous_refresh_token": "bytea",
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
_PERSIST = text(f"""
    UPDATE mail_credentials AS c
    SET access_token = coalesce(n.access_token, c.access_token),
        token_obtained_at = coalesce(n.obtained_at, c.token_obtained_at),
        token_expiry = coalesce(n.expires_at, c.token_expiry),
        refresh_token = coalesce(n.refresh_token, c.refresh_token),
        previous_refresh_token = coalesce(n.previous_refresh_token, c.previous_refresh_token),
        refresh_token_issued_at =
            CASE WHEN n.refresh_token IS NULL THEN c.refresh_token_issued_at ELSE n.obtained_at END,
        last_refreshed_at = coalesce(n.obtained_at, c.last_refreshed_at),
        version = c.version + CASE WHEN n.access_token IS NULL THEN 0 ELSE 1 END,
        status_changed_at = CASE WHEN c.status = n.status THEN c.status_changed_at ELSE :now END,
        status = n.status, refresh_due_at = CASE WHEN c.use_oauth THEN n.due_at END,
        lease_id = NULL, lease_until = NULL,
        failure_kind = n.failure_kind, failure_code = n.failure_code, failure_count = coalesce(n.failure_count, 0),
        failing_since = n.failing_since, failure_claims = n.failure_claims,
        strikes = coalesce(n.strikes, 0), struck_at = n.struck_at,
        grant_lifetime = CASE WHEN n.aged_out THEN :now - c.signed_in_at ELSE c.grant_lifetime END,
        updated_at = :now
    FROM {_WRITTEN}
    WHERE c.id = n.id AND c.version = n.version AND c.lease_id = n.lease_id
    RETURNING n.number
""")


@dataclass(slots=True, kw_only=True)
class AccountUpdate:
    """What one spent claim writes back; a token that is None stays as it is."""

    claim: Lease
    status: Status
    due_at: datetime
    failure: Failure | None
    claims: str | None
    strikes: int
    struck_at: datetime | None
    aged_out: bool = False  # the grant ended at a fixed age, which is worth remembering
    access_token: Sealed | None = None
    obtained_at: datetime | None = None
    expires_at: datetime | None = None
    refresh_token: Sealed | None = None
    previous_refresh_token: Sealed | None = None

    @property
    def version(self) -> int:
        """Of the account once this is stored: new tokens make a new one."""
        return self.claim.version + (self.access_token is not None)

    def unsaved(self) -> PendingResult:
        """What must outlive an outage. Only for an update that carries tokens."""
        assert self.access_token is not None
        assert self.obtained_at is not None
        assert self.expires_at is not None
        return PendingResult(
            account_id=self.claim.account_id,
            email=self.claim.email,
            base=self.claim.version,
            version=self.version,
            spent=mark(self.claim.refresh_token) if self.refresh_token else b"",
            access_token=self.access_token,
            refresh_token=self.refresh_token,
            previous_refresh_token=self.previous_refresh_token,
            obtained_at=self.obtained_at,
            expires_at=self.expires_at,
            due_at=self.due_at,
        )


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
    """Lease up to ``limit`` due accounts of one app registration. If their holder dies others may have them.

    ``in_crowd``: many are due together; then those of them that are out of step are claimed as such.
    """
    until = now + lease
    given = {"lease_id": lease_id, "lease_until": until, "now": now, "long_ago": now - LONG_OVERDUE}
    rows = as_dicts(connection.execute(_CLAIM_DUE, {"client": client, "limit": limit, **given}))
    return [_claim(row, lease_id, until, in_backlog=row["out_of_step"] and in_backlog) for row in rows]


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
    """Lease one account, due or not; None if it is no longer as seen, is leased or may not be refreshed."""
    seen, until = {"version": version, "seen_due_at": due_at}, now + lease
    row = connection.execute(
        _CLAIM_ONE, {"id": account, **seen, "lease_id": lease_id, "lease_until": until, "now": now}
    )
    found = row.mappings().first()
    return _claim(found, lease_id, until) if found else None


def count_due(connection: Connection, *, client: str, limit: int, now: datetime) -> int:
    """How many accounts of one app registration are due, counting no further than ``limit``."""
    statement = text(f"""
        SELECT count(*) FROM (
            SELECT 1 FROM mail_credentials WHERE client = :client AND refresh_due_at <= :now AND {FREE} LIMIT :limit
        ) AS due
    """)
    return int(connection.execute(statement, {"client": client, "now": now, "limit": limit}).scalar_one())


def release(connection: Connection, returned: Mapping[Lease, timedelta], *, now: datetime) -> None:
    """Give back what was not spent, each due again after its wait, for whoever may ask then."""
    columns = Columns({"id": "uuid", "version": "bigint", "lease_id": "uuid", "due_at": "timestamptz"})
    arrays = columns.arrays(
        {"id": claim.account_id, "version": claim.version, "lease_id": claim.lease_id, "due_at": now + wait}
        for claim, wait in returned.items()
    )
    statement = text(f"""
        UPDATE mail_credentials AS c SET lease_id = NULL, lease_until = NULL, refresh_due_at = n.due_at FROM {columns}
        WHERE c.id = n.id AND c.version = n.version AND c.lease_id = n.lease_id
    """)
    connection.execute(statement, arrays)


def persist(connection: Connection, updates: Sequence[AccountUpdate], *, now: datetime) -> dict[AccountId, int]:
    """Write spent claims back if they are still ours. Returns the versions of those that were."""
    written = connection.execute(_PERSIST, {**_WRITTEN.arrays(map(_row, updates)), "now": now}).scalars()
    return {updates[number - 1].claim.account_id: updates[number - 1].version for number in written}


def _row(update: AccountUpdate) -> dict[str, Any]:
    claim, failure = update.claim, update.failure
    return {
        "id": claim.account_id,
        "version": claim.version,
        "lease_id": claim.lease_id,
        "access_token": update.access_token,
        "obtained_at": update.obtained_at,
        "expires_at": update.expires_at,
        "refresh_token": update.refresh_token,
        "previous_refresh_token": update.previous_refresh_token,
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


def find_stored(connection: Connection, updates: Sequence[AccountUpdate]) -> dict[AccountId, int]:
    """The versions of those updates whose access token is what is stored: no two seals are alike."""
    columns = Columns({"id": "uuid", "access_token": "bytea"})
    arrays = columns.arrays({"id": u.claim.account_id, "access_token": u.access_token} for u in updates)
    statement = text(f"""
        SELECT c.id, c.version FROM mail_credentials AS c JOIN {columns}
          ON c.id = n.id AND c.access_token = n.access_token
    """)
    return {AccountId(account): version for account, version in connection.execute(statement, arrays)}


def quarantine(connection: Connection, claim: Lease, *, code: str, now: datetime) -> bool:
    """Set an account aside whose secret does not open. Its ciphertext stays as it is: the key may come back."""
    result = connection.execute(
        text("""
            UPDATE mail_credentials
            SET status = 'unreadable', status_changed_at = :now, refresh_due_at = NULL,
                lease_id = NULL, lease_until = NULL, failure_kind = 'unreadable', failure_code = :code,
                failure_count = failure_count + 1, failing_since = :now, updated_at = :now
            WHERE id = :id AND version = :version AND lease_id = :lease_id
        """),
        {"id": claim.account_id, "version": claim.version, "lease_id": claim.lease_id, "code": code, "now": now},
    )
    return result.rowcount == 1


def _claim(row: Mapping[Any, Any], lease_id: LeaseId, until: datetime, *, in_backlog: bool = False) -> Lease:
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
    )
