"""The sealed columns: none is forgotten, none is compressed, and re-sealing loses against a refresh."""

from dataclasses import replace
from uuid import UUID

import pytest

from tests.constants import ANN, BOB, CAT
from tests.integration.db.rows import Rows, grant, refreshed
from worker.db import key_rotation
from worker.db.key_rotation import SEALED_COLUMNS, Page, SealedRow
from worker.domain.account import AccountId, Lease, account_id
from worker.domain.token import Sealed
from worker.vault import key_prefix

OLD, NEW = key_prefix("old"), key_prefix("new")
FIRST = UUID(int=0)


def test_the_rotation_covers_every_column_of_bytes(rows: Rows) -> None:
    """A forgotten column would stay under a key that an operator then deletes."""
    columns = rows.sql("""
        SELECT attname FROM pg_attribute
        WHERE attrelid = 'mail_credentials'::regclass AND atttypid = 'bytea'::regtype AND NOT attisdropped
    """)

    assert {name for (name,) in columns} == set(SEALED_COLUMNS)


def test_ciphertext_is_not_compressed(rows: Rows) -> None:
    """Ciphertext does not shrink, and trying costs CPU at every refresh.

    It is stored plainly, out of line if it is long.
    """
    storage = rows.sql("""
        SELECT attname, attstorage FROM pg_attribute
        WHERE attrelid = 'mail_credentials'::regclass AND atttypid = 'bytea'::regtype
    """)

    assert dict(map(tuple, storage)) == dict.fromkeys(SEALED_COLUMNS, "e")


def seal_all(rows: Rows, email: str, **prefixes: bytes) -> None:
    """Save an account with a value in every sealed column, under the old key except for ``prefixes``."""
    rows.save(grant(email))
    values = {column: prefixes.get(column, OLD) + b" " + column.encode() for column in SEALED_COLUMNS}
    assignments = ", ".join(f"{column} = :{column}" for column in SEALED_COLUMNS)
    rows.sql(f"UPDATE mail_credentials SET {assignments} WHERE email = :email", email=email, **values)


def page(rows: Rows, *, after: UUID = FIRST, size: int = 10) -> Page:
    with rows.database.begin() as connection:
        return key_rotation.page(connection, after=after, size=size)


def left(rows: Rows) -> list[SealedRow]:
    with rows.database.begin() as connection:
        return key_rotation.find_other_than(connection, NEW, key_rotation.page(connection, after=FIRST, size=10))


def count_left(rows: Rows) -> int:
    with rows.database.begin() as connection:
        return key_rotation.count_other_than(connection, NEW, key_rotation.page(connection, after=FIRST, size=10))


def swap(rows: Rows, old: list[SealedRow], new: list[SealedRow]) -> int:
    with rows.database.begin() as connection:
        return key_rotation.swap(connection, old, new)


def under_new_key(row: SealedRow) -> SealedRow:
    return replace(row, values=tuple(value and Sealed(NEW + value[len(OLD) :]) for value in row.values))


@pytest.mark.parametrize("column", SEALED_COLUMNS)
def test_one_value_under_an_old_key_is_enough_to_be_found(rows: Rows, column: str) -> None:
    """Each column is tried, because the old key may be removed only when no value needs it."""
    seal_all(rows, ANN, **(dict.fromkeys(SEALED_COLUMNS, NEW) | {column: OLD}))
    seal_all(rows, BOB, **dict.fromkeys(SEALED_COLUMNS, NEW))

    assert [row.account_id for row in left(rows)] == [account_id(ANN)]
    assert count_left(rows) == 1


def test_an_account_without_tokens_needs_no_rotation(rows: Rows) -> None:
    """A disconnected account has nothing to re-seal and must not keep a rotation from ending."""
    rows.save(grant())
    rows.disconnect()

    assert left(rows) == []
    assert count_left(rows) == 0


def test_a_longer_key_id_is_another_key(rows: Rows) -> None:
    """The key id new2 begins with new, but is a different id."""
    seal_all(rows, ANN, **dict.fromkeys(SEALED_COLUMNS, key_prefix("new2")))

    assert count_left(rows) == 1


def test_accounts_are_scanned_in_pages(rows: Rows) -> None:
    """Pages are in order of id and include accounts without old values, so no statement reads more than a page."""
    for email in (ANN, BOB, CAT):
        seal_all(rows, email)
    ids = sorted(map(account_id, (ANN, BOB, CAT)))

    assert page(rows, size=2) == ids[:2]
    assert page(rows, after=ids[1], size=2) == ids[2:]
    assert page(rows, after=ids[2], size=2) == []


def test_a_query_about_a_page_covers_only_that_page(rows: Rows) -> None:
    """Each account is found and counted once."""
    for email in (ANN, BOB, CAT):
        seal_all(rows, email)
    ids = sorted(map(account_id, (ANN, BOB, CAT)))

    with rows.database.begin() as connection:
        for part in (ids[:2], ids[2:]):
            assert [row.account_id for row in key_rotation.find_readable(connection, part)] == part
            assert [row.account_id for row in key_rotation.find_other_than(connection, NEW, part)] == part
            assert key_rotation.count_other_than(connection, NEW, part) == len(part)


def test_a_row_is_re_sealed_column_by_column(rows: Rows) -> None:
    """Every value returns to its own column, and none is missing afterwards."""
    seal_all(rows, ANN)
    [row] = left(rows)

    assert swap(rows, [row], [under_new_key(row)]) == 1

    stored = rows.row()
    assert {column: stored[column] for column in SEALED_COLUMNS} == {
        column: NEW + b" " + column.encode() for column in SEALED_COLUMNS
    }
    assert stored["version"] == 1
    assert count_left(rows) == 0


def test_re_sealing_loses_against_a_refresh(rows: Rows, lease: Lease) -> None:
    """The tokens that it has read are outdated by then. The newer ones stay and are found in the next run."""
    [row] = left(rows)
    rows.persist(refreshed(lease, refresh_token=None, replaces=None))
    before = rows.row()

    assert swap(rows, [row], [replace(row, values=(Sealed(NEW), Sealed(NEW)))]) == 0

    assert rows.row() == before


def test_re_sealing_keeps_a_refresh_in_flight_valid(rows: Rows, lease: Lease) -> None:
    """Re-sealing changes how a token is stored, not the token, so the pending response must still be stored."""
    [row] = left(rows)
    swap(rows, [row], [replace(row, values=(Sealed(NEW), Sealed(NEW)))])

    assert rows.persist(refreshed(lease)) == {AccountId(lease.account_id): 2}
