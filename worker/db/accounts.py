"""Every statement about accounts, named after its use. Callers own the transaction; ``now`` is always an argument."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, RowMapping, text

from worker.db.rows import FORGIVEN, FREE, LEASE_UNTIL, as_failure, as_mail
from worker.domain.account import Account, AccountId, Status
from worker.domain.token import Sealed

_ACCOUNT_COLUMNS = f"""
    id, email, client, authority, scopes, use_oauth,
    imap_host, imap_port, smtp_host, smtp_port, pop_host, pop_port, login_name,
    access_token, refresh_token, token_obtained_at, token_expiry, refresh_token_issued_at, version,
    status, refresh_due_at, {LEASE_UNTIL} AS lease_until,
    failure_kind, failure_code, failure_count, failing_since, failure_claims, last_refreshed_at,
    signed_in_at, grant_lifetime, labels
"""


def find(connection: Connection, account: AccountId) -> Account | None:
    """The stored account, or None."""
    row = connection.execute(text(f"SELECT {_ACCOUNT_COLUMNS} FROM mail_credentials WHERE id = :id"), {"id": account})
    found = row.mappings().first()
    return _account(found) if found else None


def find_many(connection: Connection, accounts: Sequence[AccountId], *, lock: bool = False) -> dict[AccountId, Account]:
    """Those of the accounts that are stored. ``lock``: until the end of the transaction, in order of their ids."""
    locked = "ORDER BY id FOR UPDATE" if lock else ""
    statement = text(f"SELECT {_ACCOUNT_COLUMNS} FROM mail_credentials WHERE id = ANY(CAST(:ids AS uuid[])) {locked}")
    rows = connection.execute(statement, {"ids": list(accounts)}).mappings()
    return {AccountId(row["id"]): _account(row) for row in rows}


def versions(connection: Connection, accounts: Sequence[AccountId]) -> dict[AccountId, int]:
    """The versions of those of the accounts that are stored."""
    statement = text("SELECT id, version FROM mail_credentials WHERE id = ANY(CAST(:ids AS uuid[]))")
    return {AccountId(row[0]): row[1] for row in connection.execute(statement, {"ids": list(accounts)})}


def set_status(
    connection: Connection,
    accounts: Sequence[AccountId],
    status: Status,
    *,
    only: str = "true",
    due_at: datetime | None,
    now: datetime,
) -> list[AccountId]:
    """Put accounts into a state by hand, forgiving their failures; of a refresh in flight only tokens are stored.

    ``only``: a condition; accounts that do not fulfil it stay as they are. Returns those that were changed.
    """
    statement = text(f"""
        UPDATE mail_credentials
        SET status_changed_at = CASE WHEN status = :status THEN status_changed_at ELSE CAST(:now AS timestamptz) END,
            status = :status, refresh_due_at = :due_at, lease_id = NULL, lease_until = NULL,
            version = version + 1, updated_at = :now,
            {FORGIVEN}
        WHERE id = ANY(CAST(:ids AS uuid[])) AND {only} RETURNING id
    """)
    given = {"ids": list(accounts), "status": status.value, "due_at": due_at, "now": now}
    return [AccountId(id_) for id_ in connection.execute(statement, given).scalars()]


def set_due(connection: Connection, accounts: Sequence[AccountId], *, now: datetime) -> list[AccountId]:
    """Make those of the accounts due that may be refreshed and are not being refreshed. Returns them."""
    statement = text(f"""
        UPDATE mail_credentials SET refresh_due_at = :now, updated_at = :now
        WHERE id = ANY(CAST(:ids AS uuid[])) AND refresh_due_at IS NOT NULL AND {FREE} RETURNING id
    """)
    return [AccountId(id_) for id_ in connection.execute(statement, {"ids": list(accounts), "now": now}).scalars()]


def erase_tokens(connection: Connection, accounts: Sequence[AccountId]) -> None:
    """Forget the tokens of accounts for good. Only after they can no longer be due."""
    connection.execute(
        text("""
            UPDATE mail_credentials
            SET access_token = NULL, refresh_token = NULL, token_expiry = NULL
            WHERE id = ANY(CAST(:ids AS uuid[]))
        """),
        {"ids": list(accounts)},
    )


def _account(row: RowMapping) -> Account:
    return Account(
        id=AccountId(row["id"]),
        email=row["email"],
        client=row["client"],
        authority=row["authority"],
        scopes=tuple(row["scopes"].split()),
        use_oauth=row["use_oauth"],
        mail=as_mail(row),
        access_token=_sealed(row["access_token"]),
        refresh_token=_sealed(row["refresh_token"]),
        obtained_at=row["token_obtained_at"],
        expires_at=row["token_expiry"],
        refresh_token_issued_at=row["refresh_token_issued_at"],
        version=row["version"],
        status=Status(row["status"]),
        due_at=row["refresh_due_at"],
        lease_until=row["lease_until"],
        failure=as_failure(row),
        claims=row["failure_claims"],
        last_refreshed_at=row["last_refreshed_at"],
        signed_in_at=row["signed_in_at"],
        grant_lifetime=row["grant_lifetime"],
        labels=tuple(row["labels"] or ()),
    )


def _sealed(value: bytes | None) -> Sealed | None:
    return None if value is None else Sealed(bytes(value))
