"""Sealed columns as such, for re-sealing them: which rows are left, and how they are swapped."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from sqlalchemy import Connection, text

from worker.db.rows import as_mail
from worker.domain.account import AccountId, MailServers
from worker.domain.token import Sealed

#: Every encrypted column there is; a test compares this with the table.
SEALED_COLUMNS = ("access_token", "refresh_token")

_UNDER_ANOTHER_KEY = " OR ".join(
    f"substring({column} FROM 1 FOR octet_length(:prefix)) <> :prefix" for column in SEALED_COLUMNS
)
_COLUMNS = f"""
    id, email, client, authority, scopes, imap_host, imap_port, smtp_host, smtp_port, pop_host, pop_port, login_name,
    {", ".join(SEALED_COLUMNS)}
"""
_IN_PAGE = "id BETWEEN :first AND :last"

#: Ids in order, at least one.
Page: TypeAlias = Sequence[AccountId]


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRow:
    """One account's ciphertexts, in the order of SEALED_COLUMNS, and what they are bound to."""

    account_id: AccountId
    values: tuple[Sealed | None, ...]
    email: str
    client: str
    authority: str | None
    scopes: tuple[str, ...]
    mail: MailServers


def page(connection: Connection, *, after: UUID, size: int) -> Page:
    """The next accounts in order of id: one statement over all of them would take too long."""
    statement = text("SELECT id FROM mail_credentials WHERE id > :after ORDER BY id LIMIT :size")
    return [AccountId(id_) for id_ in connection.execute(statement, {"after": after, "size": size}).scalars()]


def find_readable(connection: Connection, page: Page) -> list[SealedRow]:
    """The ciphertexts of a page's accounts, without the accounts that are known to be unreadable."""
    return _rows(connection, "status <> 'unreadable'", page)


def find_other_than(connection: Connection, prefix: bytes, page: Page) -> list[SealedRow]:
    """Those of a page's accounts with any value that does not start with ``prefix``, in order of id."""
    return _rows(connection, _UNDER_ANOTHER_KEY, page, prefix=prefix)


def count_other_than(connection: Connection, prefix: bytes, page: Page) -> int:
    """How many of a page's accounts hold a value that does not start with ``prefix``."""
    statement = text(f"SELECT count(*) FROM mail_credentials WHERE {_IN_PAGE} AND ({_UNDER_ANOTHER_KEY})")
    values = {"first": page[0], "last": page[-1], "prefix": prefix}
    return int(connection.execute(statement, values).scalar_one())


def swap(connection: Connection, old: Sequence[SealedRow], new: Sequence[SealedRow]) -> int:
    """Replace each row's ciphertexts, unless a refresh has replaced one of them meanwhile. Returns how many were."""
    assignments = ", ".join(f"{column} = :new_{column}" for column in SEALED_COLUMNS)
    unchanged = " AND ".join(f"{column} IS NOT DISTINCT FROM :old_{column}" for column in SEALED_COLUMNS)
    statement = text(f"UPDATE mail_credentials SET {assignments} WHERE id = :id AND {unchanged}")
    swapped = 0
    for before, after in zip(old, new, strict=True):
        values = {f"old_{column}": value for column, value in zip(SEALED_COLUMNS, before.values, strict=True)}
        values |= {f"new_{column}": value for column, value in zip(SEALED_COLUMNS, after.values, strict=True)}
        swapped += connection.execute(statement, {"id": before.account_id, **values}).rowcount
    return swapped


def _rows(connection: Connection, condition: str, page: Page, **values: object) -> list[SealedRow]:
    statement = text(f"SELECT {_COLUMNS} FROM mail_credentials WHERE {_IN_PAGE} AND ({condition}) ORDER BY id")
    rows = connection.execute(statement, {"first": page[0], "last": page[-1], **values}).mappings()
    return [
        SealedRow(
            account_id=AccountId(row["id"]),
            values=tuple(row[column] for column in SEALED_COLUMNS),
            email=row["email"],
            client=row["client"],
            authority=row["authority"],
            scopes=tuple(row["scopes"].split()),
            mail=as_mail(row),
        )
        for row in rows
    ]
