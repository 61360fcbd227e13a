"""Grants on their way in: a few of them by one statement, many by COPY. Callers own the transaction."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast

import psycopg
from psycopg.errors import UniqueViolation
from sqlalchemy import Connection, text

from worker.db.rows import FORGIVEN, SERVERS, Columns, stored_type
from worker.domain.account import AccountId, MailServers, NewAccount, Status
from worker.domain.binding import own_servers
from worker.domain.pause import Pause
from worker.domain.token import Sealed

_TYPES = {
    "id": "uuid",
    "email": "text",
    "client": "text",
    "authority": "text",
    "scopes": "text",
    "use_oauth": "bool",
    "imap_host": "text",
    "imap_port": "int4",
    "smtp_host": "text",
    "smtp_port": "int4",
    "pop_host": "text",
    "pop_port": "int4",
    "login_name": "text",
    "client_type": "text",
    "labels": "text",  # with spaces between: an array of arrays would have to be rectangular
    "access_token": "bytea",
    "token_obtained_at": "timestamptz",
    "token_expiry": "timestamptz",
    "refresh_token": "bytea",
    "refresh_token_issued_at": "timestamptz",
    "refresh_due_at": "timestamptz",
    "status": "text",
}
_COLUMNS = Columns(_TYPES)

# A new grant replaces the old one and forgives everything. The version moves on, so a refresh in flight for the old
# grant loses its swap, and no copy of the old entry can pass for the newer one.
_SAVE = text(f"""
    INSERT INTO mail_credentials AS c (
        id, email, client, authority, scopes, use_oauth, imap_host, imap_port, smtp_host, smtp_port, pop_host, pop_port,
        login_name, client_type, labels, access_token, token_obtained_at, token_expiry, refresh_token,
        refresh_token_issued_at, refresh_due_at, status, signed_in_at, created_at, updated_at)
    SELECT n.id, n.email, n.client, n.authority, n.scopes, n.use_oauth,
           n.imap_host, n.imap_port, n.smtp_host, n.smtp_port, n.pop_host, n.pop_port, n.login_name, n.client_type,
           string_to_array(n.labels, ' '),
           n.access_token, n.token_obtained_at, n.token_expiry, n.refresh_token, n.refresh_token_issued_at,
           n.refresh_due_at, n.status,
           :now, :now, :now
    FROM {_COLUMNS}
    ON CONFLICT (id) DO UPDATE SET
        client = excluded.client, authority = excluded.authority, scopes = excluded.scopes,
        use_oauth = excluded.use_oauth,
        imap_host = excluded.imap_host, imap_port = excluded.imap_port, smtp_host = excluded.smtp_host,
        smtp_port = excluded.smtp_port, pop_host = excluded.pop_host, pop_port = excluded.pop_port,
        login_name = excluded.login_name, client_type = excluded.client_type,
        labels = coalesce(excluded.labels, c.labels),
        access_token = excluded.access_token, token_obtained_at = excluded.token_obtained_at,
        token_expiry = excluded.token_expiry,
        refresh_token = excluded.refresh_token,
        refresh_token_issued_at = excluded.refresh_token_issued_at,
        status_changed_at =
            CASE WHEN c.status = excluded.status THEN c.status_changed_at ELSE excluded.updated_at END,
        version = c.version + 1, status = excluded.status, refresh_due_at = excluded.refresh_due_at,
        lease_id = NULL, lease_until = NULL,
        {FORGIVEN}, signed_in_at = excluded.signed_in_at,
        updated_at = excluded.updated_at
    RETURNING c.id, c.version
""")

# COPY cannot replace, so this is for new accounts alone: a temporary table in between would cost Postgres half as much
# again as the statement above. In the order of _row; with their types, because in binary nothing is converted.
_MOMENTS = ("signed_in_at", "created_at", "updated_at")
_MANY = 50  # from about half as many on, COPY saves more than it costs to ask which are new
_COPY_IN = f"COPY mail_credentials ({', '.join((*_TYPES, *_MOMENTS))}) FROM STDIN (FORMAT binary)"


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedGrant:
    """A grant ready to be stored, and the mail servers that its account will have."""

    account_id: AccountId
    grant: NewAccount
    mail: MailServers
    refresh_token: Sealed | None
    access_token: Sealed | None
    obtained_at: datetime | None  # of the access token
    issued_at: datetime | None  # of the refresh token
    due_at: datetime | None
    status: Status = Status.ACTIVE


def held(grants: Sequence[SealedGrant], pauses: Sequence[Pause]) -> Sequence[SealedGrant]:
    """The grants; those of a paused group are paused."""
    return [replace(each, status=Status.PAUSED, due_at=None) if _is_held(each, pauses) else each for each in grants]


def _is_held(sealed: SealedGrant, pauses: Sequence[Pause]) -> bool:
    return any(pause.group.covers(sealed.grant.client, sealed.grant.email) for pause in pauses)


def save(
    connection: Connection, grants: Sequence[SealedGrant], *, stored: Collection[AccountId], now: datetime
) -> dict[AccountId, int]:
    """Store new grants in the place of the accounts' old ones. Returns the versions of the rows.

    ``stored``: the accounts that have a row. Of many grants, those of the others go in by COPY.
    """
    new = [grant for grant in grants if grant.account_id not in stored] if len(grants) >= _MANY else []
    copied = _copy(connection, new, now=now) if new else {}
    others = [grant for grant in grants if grant.account_id not in copied]
    return copied | (_upsert(connection, others, now=now) if others else {})


def _upsert(connection: Connection, grants: Sequence[SealedGrant], *, now: datetime) -> dict[AccountId, int]:
    rows = connection.execute(_SAVE, {**_COLUMNS.arrays(map(_row, grants)), "now": now})
    return {AccountId(account): version for account, version in rows}


def _copy(connection: Connection, grants: Sequence[SealedGrant], *, now: datetime) -> dict[AccountId, int]:
    """Stores and returns nothing if another process has just stored one of the accounts."""
    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    try:
        with connection.begin_nested(), driver.cursor().copy(_COPY_IN) as copy:
            copy.set_types([*(_TYPES | {"labels": "text[]"}).values(), *("timestamptz" for _ in _MOMENTS)])
            for grant in grants:
                row = _row(grant) | {"labels": _label_list(grant.grant)}
                copy.write_row((*row.values(), *(now for _ in _MOMENTS)))
    except UniqueViolation:
        return {}
    return {grant.account_id: 1 for grant in grants}


def _label_list(grant: NewAccount) -> list[str] | None:
    return None if grant.labels is None else list(grant.labels)


def _row(sealed: SealedGrant) -> dict[str, Any]:
    """The columns that differ from account to account. Of the mail servers, those that are not Microsoft's."""
    grant, own = sealed.grant, own_servers(sealed.mail)
    return {
        "id": sealed.account_id,
        "email": grant.email,
        "client": grant.client,
        "authority": grant.authority,
        "scopes": " ".join(grant.scopes),
        "use_oauth": grant.refresh_token is not None,
        **{name: own.get(name) for name in SERVERS},
        "client_type": stored_type(grant.client_type),
        "labels": None if grant.labels is None else " ".join(grant.labels),
        "access_token": sealed.access_token,
        "token_obtained_at": sealed.obtained_at,
        "token_expiry": grant.expires_at if sealed.access_token else None,
        "refresh_token": sealed.refresh_token,
        "refresh_token_issued_at": sealed.issued_at,
        "refresh_due_at": sealed.due_at,
        "status": sealed.status.value,
    }
