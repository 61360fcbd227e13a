"""Sealed columns as such, for re-sealing them under another key: which rows are left, and how they are swapped."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text

from worker.domain.credential import AccountId, Sealed

#: Every encrypted column there is; a test compares this with the table.
SEALED_COLUMNS = ("access_token", "refresh_token", "previous_refresh_token")

_UNDER_ANOTHER_KEY = " OR ".join(
    f"substring({column} FROM 1 FOR octet_length(:prefix)) <> :prefix" for column in SEALED_COLUMNS
)


@dataclass(frozen=True, slots=True)
class SealedRow:
    """One account's ciphertexts, in the order of SEALED_COLUMNS."""

    account_id: AccountId
    values: tuple[Sealed | None, ...]


def find_other_than(connection: Connection, prefix: bytes, *, after: UUID, limit: int) -> list[SealedRow]:
    """Up to ``limit`` accounts, in order of id, with any value that does not start with ``prefix``."""
    statement = text(
        f"SELECT id, {', '.join(SEALED_COLUMNS)} FROM mail_credentials"
        f" WHERE id > :after AND ({_UNDER_ANOTHER_KEY}) ORDER BY id LIMIT :limit"
    )
    rows = connection.execute(statement, {"prefix": prefix, "after": after, "limit": limit})
    return [SealedRow(AccountId(row[0]), tuple(row[1:])) for row in rows]


def count_other_than(connection: Connection, prefix: bytes) -> int:
    """How many accounts hold a value that does not start with ``prefix``."""
    statement = text(f"SELECT count(*) FROM mail_credentials WHERE {_UNDER_ANOTHER_KEY}")
    return int(connection.execute(statement, {"prefix": prefix}).scalar_one())


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
