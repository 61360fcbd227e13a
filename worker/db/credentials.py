"""Every statement about accounts, named after its use. Callers own the transaction; ``now`` is always an argument."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, CursorResult, LargeBinary, RowMapping, bindparam, text

from worker.domain.credential import (
    Account,
    AccountId,
    Claim,
    Failure,
    Grant,
    LeaseId,
    MailServers,
    Sealed,
    Status,
)

_CLAIM_COLUMNS = """
    c.id, c.email, c.client, c.authority, c.scopes, c.refresh_token, c.version, c.lease_id, c.refresh_due_at, c.status,
    c.failure_kind, c.failure_code, c.failure_count, c.failing_since
"""

_CLAIM_DUE = text(f"""
    WITH due AS (
        SELECT id FROM mail_credentials
        WHERE refresh_due_at <= :now
        ORDER BY refresh_due_at           -- oldest first: after an outage the longest overdue are served first
        LIMIT :limit
        FOR UPDATE SKIP LOCKED            -- a rival's rows are as good as taken
    )
    UPDATE mail_credentials AS c
    SET lease_id = :lease_id, refresh_due_at = :lease_until
    FROM due WHERE c.id = due.id
    RETURNING {_CLAIM_COLUMNS}
""")

_CLAIM_ONE = text(f"""
    UPDATE mail_credentials AS c
    SET lease_id = :lease_id, refresh_due_at = :lease_until
    WHERE c.id = :id AND c.use_oauth AND c.refresh_token IS NOT NULL
      AND c.status IN ('active', 'reauth_required', 'blocked')
      AND c.version = :version                                -- somebody refreshed it since we looked
      AND (c.lease_id IS NULL OR c.refresh_due_at <= :now)    -- somebody is refreshing it now
    RETURNING {_CLAIM_COLUMNS}
""")

# A rival that took over an expired lease, or a sign-in meanwhile, has changed version or lease: then this answer is
# the older one, and is dropped.
_PERSIST = text("""
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
        status = n.status, refresh_due_at = n.due_at, lease_id = NULL,
        failure_kind = n.failure_kind, failure_code = n.failure_code, failure_count = n.failure_count,
        failing_since = n.failing_since, failure_claims = n.failure_claims,
        updated_at = :now
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:versions AS bigint[]), CAST(:lease_ids AS uuid[]),
        CAST(:access_tokens AS bytea[]), CAST(:obtained_ats AS timestamptz[]), CAST(:expires_ats AS timestamptz[]),
        CAST(:refresh_tokens AS bytea[]), CAST(:previous_refresh_tokens AS bytea[]),
        CAST(:statuses AS text[]), CAST(:due_ats AS timestamptz[]),
        CAST(:failure_kinds AS text[]), CAST(:failure_codes AS text[]), CAST(:failure_counts AS int[]),
        CAST(:failing_sinces AS timestamptz[]), CAST(:failure_claimss AS text[])
    ) AS n(id, version, lease_id, access_token, obtained_at, expires_at, refresh_token, previous_refresh_token,
           status, due_at, failure_kind, failure_code, failure_count, failing_since, failure_claims)
    WHERE c.id = n.id AND c.version = n.version AND c.lease_id = n.lease_id
    RETURNING c.id, c.version
""")

_ACCOUNT_COLUMNS = """
    id, email, client, authority, scopes, use_oauth, imap_host, imap_port, smtp_host, smtp_port,
    access_token, refresh_token, token_obtained_at, token_expiry, refresh_token_issued_at, version,
    status, refresh_due_at, lease_id IS NOT NULL AS leased,
    failure_kind, failure_code, failure_count, failing_since, failure_claims, last_refreshed_at
"""

# A new grant replaces the old one and forgives everything. The version moves on, so a refresh in flight for the old
# grant loses its swap, and no copy of the old entry can pass for the newer one.
_SAVE = text("""
    INSERT INTO mail_credentials AS c (
        id, email, client, authority, scopes, imap_host, imap_port, smtp_host, smtp_port,
        access_token, token_obtained_at, token_expiry, refresh_token, refresh_token_issued_at, refresh_due_at,
        created_at, updated_at)
    SELECT n.id, n.email, n.client, n.authority, n.scopes,
           n.imap_host, n.imap_port, n.smtp_host, n.smtp_port,
           n.access_token, n.obtained_at, n.expires_at, n.refresh_token, :now, n.due_at, :now, :now
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:emails AS text[]), CAST(:clients AS text[]), CAST(:authorities AS text[]),
        CAST(:scopess AS text[]), CAST(:imap_hosts AS text[]), CAST(:imap_ports AS int[]),
        CAST(:smtp_hosts AS text[]), CAST(:smtp_ports AS int[]),
        CAST(:access_tokens AS bytea[]), CAST(:obtained_ats AS timestamptz[]), CAST(:expires_ats AS timestamptz[]),
        CAST(:refresh_tokens AS bytea[]), CAST(:due_ats AS timestamptz[])
    ) AS n(id, email, client, authority, scopes, imap_host, imap_port, smtp_host, smtp_port,
           access_token, obtained_at, expires_at, refresh_token, due_at)
    ON CONFLICT (id) DO UPDATE SET
        client = excluded.client, authority = excluded.authority, scopes = excluded.scopes, use_oauth = true,
        imap_host = coalesce(excluded.imap_host, c.imap_host), imap_port = coalesce(excluded.imap_port, c.imap_port),
        smtp_host = coalesce(excluded.smtp_host, c.smtp_host), smtp_port = coalesce(excluded.smtp_port, c.smtp_port),
        access_token = excluded.access_token, token_obtained_at = excluded.token_obtained_at,
        token_expiry = excluded.token_expiry,
        refresh_token = excluded.refresh_token, previous_refresh_token = NULL,
        refresh_token_issued_at = excluded.refresh_token_issued_at,
        version = c.version + 1, status = 'active', refresh_due_at = excluded.refresh_due_at, lease_id = NULL,
        failure_kind = NULL, failure_code = NULL, failure_count = 0, failing_since = NULL, failure_claims = NULL,
        updated_at = excluded.updated_at
    RETURNING c.id, c.version
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedUpdate:
    """What one spent claim writes back; a token that is None stays as it is."""

    claim: Claim
    status: Status
    due_at: datetime
    failure: Failure | None
    claims: str | None
    access_token: Sealed | None = None
    obtained_at: datetime | None = None
    expires_at: datetime | None = None
    refresh_token: Sealed | None = None
    previous_refresh_token: Sealed | None = None

    def unsaved(self) -> "UnsavedUpdate":
        """What must outlive an outage. Only for an update that carries tokens."""
        assert self.access_token is not None
        assert self.obtained_at is not None
        assert self.expires_at is not None
        return UnsavedUpdate(
            account_id=self.claim.account_id,
            email=self.claim.email,
            version=self.claim.version,
            access_token=self.access_token,
            refresh_token=self.refresh_token,
            previous_refresh_token=self.previous_refresh_token,
            obtained_at=self.obtained_at,
            expires_at=self.expires_at,
            due_at=self.due_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsavedUpdate:
    """New tokens that replace those of ``version``, if that is still what is stored."""

    account_id: AccountId
    email: str
    version: int
    access_token: Sealed
    refresh_token: Sealed | None
    previous_refresh_token: Sealed | None
    obtained_at: datetime
    expires_at: datetime
    due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedGrant:
    """A grant ready to be stored."""

    account_id: AccountId
    grant: Grant
    refresh_token: Sealed
    access_token: Sealed | None
    obtained_at: datetime | None
    due_at: datetime


def claim_due(connection: Connection, *, lease_id: LeaseId, limit: int, lease: timedelta, now: datetime) -> list[Claim]:
    """Lease up to ``limit`` due accounts. If their holder dies they are simply due again when the lease ends."""
    rows = connection.execute(
        _CLAIM_DUE, {"lease_id": lease_id, "limit": limit, "lease_until": now + lease, "now": now}
    )
    return [_claim(row) for row in rows.mappings()]


def claim_one(
    connection: Connection, account: AccountId, *, version: int, lease_id: LeaseId, lease: timedelta, now: datetime
) -> Claim | None:
    """Lease one account, due or not; None if it moved on, is leased or may not be refreshed."""
    row = connection.execute(
        _CLAIM_ONE,
        {"id": account, "version": version, "lease_id": lease_id, "lease_until": now + lease, "now": now},
    )
    found = row.mappings().first()
    return _claim(found) if found else None


def count_due(connection: Connection, *, limit: int, now: datetime) -> int:
    """How many accounts are due, counting no further than ``limit``."""
    statement = text(
        "SELECT count(*) FROM (SELECT 1 FROM mail_credentials WHERE refresh_due_at <= :now LIMIT :limit) AS due"
    )
    return int(connection.execute(statement, {"now": now, "limit": limit}).scalar_one())


def persist(connection: Connection, updates: Sequence[SealedUpdate], *, now: datetime) -> dict[AccountId, int]:
    """Write spent claims back if they are still ours. Returns the versions of those that were."""
    columns = _columns(
        {
            "ids": u.claim.account_id,
            "versions": u.claim.version,
            "lease_ids": u.claim.lease_id,
            "access_tokens": u.access_token,
            "obtained_ats": u.obtained_at,
            "expires_ats": u.expires_at,
            "refresh_tokens": u.refresh_token,
            "previous_refresh_tokens": u.previous_refresh_token,
            "statuses": u.status.value,
            "due_ats": u.due_at,
            "failure_kinds": u.failure and u.failure.kind,
            "failure_codes": u.failure and u.failure.code,
            "failure_counts": u.failure.count if u.failure else 0,
            "failing_sinces": u.failure and u.failure.since,
            "failure_claimss": u.claims,
        }
        for u in updates
    )
    return _versions(connection.execute(_PERSIST, {**columns, "now": now}))


def restore(connection: Connection, update: UnsavedUpdate, *, now: datetime) -> bool:
    """Store tokens that had to wait for the database; False if something newer is stored.

    The lease they were asked under may have run out and been taken over; the holder loses, having spent an older token.
    """
    statement = text("""
        UPDATE mail_credentials
        SET access_token = :access_token, token_obtained_at = :obtained_at, token_expiry = :expires_at,
            refresh_token = coalesce(:refresh_token, refresh_token),
            previous_refresh_token = coalesce(:previous_refresh_token, previous_refresh_token),
            refresh_token_issued_at =
                CASE WHEN :refresh_token IS NULL THEN refresh_token_issued_at ELSE :obtained_at END,
            last_refreshed_at = :obtained_at, version = version + 1, status = 'active',
            refresh_due_at = :due_at, lease_id = NULL, updated_at = :now,
            failure_kind = NULL, failure_code = NULL, failure_count = 0, failing_since = NULL, failure_claims = NULL
        WHERE id = :account_id AND version = :version
    """).bindparams(
        bindparam("refresh_token", type_=LargeBinary), bindparam("previous_refresh_token", type_=LargeBinary)
    )
    return connection.execute(statement, {**asdict(update), "now": now}).rowcount == 1


def save(connection: Connection, grants: Sequence[SealedGrant], *, now: datetime) -> dict[AccountId, int]:
    """Store new grants, replacing whatever an account had. Returns the versions."""
    columns = _columns(
        {
            "ids": g.account_id,
            "emails": g.grant.email,
            "clients": g.grant.client,
            "authorities": g.grant.authority,
            "scopess": " ".join(g.grant.scopes),
            "imap_hosts": g.grant.mail and g.grant.mail.imap_host,
            "imap_ports": g.grant.mail and g.grant.mail.imap_port,
            "smtp_hosts": g.grant.mail and g.grant.mail.smtp_host,
            "smtp_ports": g.grant.mail and g.grant.mail.smtp_port,
            "access_tokens": g.access_token,
            "obtained_ats": g.obtained_at,
            "expires_ats": g.grant.expires_at if g.access_token else None,
            "refresh_tokens": g.refresh_token,
            "due_ats": g.due_at,
        }
        for g in grants
    )
    return _versions(connection.execute(_SAVE, {**columns, "now": now}))


def find(connection: Connection, account: AccountId) -> Account | None:
    """The stored account, or None."""
    row = connection.execute(text(f"SELECT {_ACCOUNT_COLUMNS} FROM mail_credentials WHERE id = :id"), {"id": account})
    found = row.mappings().first()
    return _account(found) if found else None


def list_accounts(
    connection: Connection, *, status: Status | None = None, after: str = "", limit: int
) -> list[Account]:
    """Up to ``limit`` accounts in order of e-mail, from the one after ``after`` on."""
    condition = "AND status = :status" if status else ""
    statement = text(
        f"SELECT {_ACCOUNT_COLUMNS} FROM mail_credentials WHERE email > :after {condition} ORDER BY email LIMIT :limit"
    )
    rows = connection.execute(statement, {"after": after, "status": status and status.value, "limit": limit})
    return [_account(row) for row in rows.mappings()]


def set_status(
    connection: Connection, account: AccountId, status: Status, *, due_at: datetime | None, now: datetime
) -> int | None:
    """Put an account into a state by hand, forgiving its failures; a refresh in flight loses its swap.

    Returns the new version, or None if there is no such account.
    """
    statement = text("""
        UPDATE mail_credentials
        SET status = :status, refresh_due_at = :due_at, lease_id = NULL, version = version + 1, updated_at = :now,
            failure_kind = NULL, failure_code = NULL, failure_count = 0, failing_since = NULL, failure_claims = NULL
        WHERE id = :id RETURNING version
    """)
    version: int | None = connection.execute(
        statement, {"id": account, "status": status.value, "due_at": due_at, "now": now}
    ).scalar()
    return version


def erase_tokens(connection: Connection, account: AccountId) -> None:
    """Forget an account's tokens for good. Only after it can no longer be due."""
    connection.execute(
        text("""
            UPDATE mail_credentials
            SET access_token = NULL, refresh_token = NULL, previous_refresh_token = NULL, token_expiry = NULL
            WHERE id = :id
        """),
        {"id": account},
    )


def quarantine(connection: Connection, claim: Claim, *, code: str, now: datetime) -> bool:
    """Set an account aside whose secret does not open. Its ciphertext stays as it is: the key may come back."""
    result = connection.execute(
        text("""
            UPDATE mail_credentials
            SET status = 'unreadable', refresh_due_at = NULL, lease_id = NULL, failure_kind = 'unreadable',
                failure_code = :code, failure_count = failure_count + 1, failing_since = :now, updated_at = :now
            WHERE id = :id AND version = :version AND lease_id = :lease_id
        """),
        {"id": claim.account_id, "version": claim.version, "lease_id": claim.lease_id, "code": code, "now": now},
    )
    return result.rowcount == 1


def summary(connection: Connection, *, now: datetime) -> Mapping[str, Any]:
    """What ``status`` shows: accounts by state, how many are due or expired, and the oldest due time."""
    counts = connection.execute(text("SELECT status, count(*) AS number FROM mail_credentials GROUP BY status"))
    row = connection.execute(
        text("""
            SELECT count(*) FILTER (WHERE refresh_due_at <= :now) AS due,
                   count(*) FILTER (WHERE lease_id IS NOT NULL AND refresh_due_at > :now) AS in_flight,
                   count(*) FILTER (WHERE status = 'active' AND token_expiry <= :now) AS expired,
                   count(*) FILTER (WHERE failure_count > 0) AS failing,
                   min(refresh_due_at) FILTER (WHERE refresh_due_at <= :now) AS oldest_due_at,
                   max(last_refreshed_at) AS last_refreshed_at
            FROM mail_credentials
        """),
        {"now": now},
    )
    return {"accounts": {row.status: row.number for row in counts}, **row.mappings().one()}


def _claim(row: RowMapping) -> Claim:
    return Claim(
        account_id=AccountId(row["id"]),
        email=row["email"],
        client=row["client"],
        authority=row["authority"],
        scopes=tuple(row["scopes"].split()),
        refresh_token=Sealed(bytes(row["refresh_token"])),
        version=row["version"],
        lease_id=LeaseId(row["lease_id"]),
        lease_until=row["refresh_due_at"],
        status=Status(row["status"]),
        failure=_failure(row),
    )


def _account(row: RowMapping) -> Account:
    default = MailServers()
    return Account(
        id=AccountId(row["id"]),
        email=row["email"],
        client=row["client"],
        authority=row["authority"],
        scopes=tuple(row["scopes"].split()),
        use_oauth=row["use_oauth"],
        mail=MailServers(
            imap_host=row["imap_host"] or default.imap_host,
            imap_port=row["imap_port"] or default.imap_port,
            smtp_host=row["smtp_host"] or default.smtp_host,
            smtp_port=row["smtp_port"] or default.smtp_port,
        ),
        access_token=_sealed(row["access_token"]),
        refresh_token=_sealed(row["refresh_token"]),
        obtained_at=row["token_obtained_at"],
        expires_at=row["token_expiry"],
        refresh_token_issued_at=row["refresh_token_issued_at"],
        version=row["version"],
        status=Status(row["status"]),
        due_at=row["refresh_due_at"],
        leased=row["leased"],
        failure=_failure(row),
        claims=row["failure_claims"],
        last_refreshed_at=row["last_refreshed_at"],
    )


def _failure(row: RowMapping) -> Failure | None:
    if not row["failure_count"]:
        return None
    return Failure(
        kind=row["failure_kind"], code=row["failure_code"], count=row["failure_count"], since=row["failing_since"]
    )


def _sealed(value: bytes | None) -> Sealed | None:
    return None if value is None else Sealed(bytes(value))


def _columns(records: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """Turn records into one array per column, as unnest takes them."""
    rows = list(records)
    return {name: [row[name] for row in rows] for name in rows[0]}


def _versions(rows: CursorResult[Any]) -> dict[AccountId, int]:
    return {AccountId(row.id): row.version for row in rows}
