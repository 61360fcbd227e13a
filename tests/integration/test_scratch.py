"""The database that tests share is empty for each of them, and has the schema of the migrations."""

from contextlib import closing

import psycopg
import pytest

from tests.stores import Scratch


def _run(url: str, *statements: str) -> None:
    with closing(psycopg.connect(url.replace("+psycopg", ""), autocommit=True)) as connection:
        for statement in statements:
            connection.execute(statement)


def _count(url: str) -> object:
    with closing(psycopg.connect(url.replace("+psycopg", ""))) as connection:
        return connection.execute("SELECT count(*) FROM oauth_clients").fetchone()


def test_rows_do_not_stay(scratch: Scratch) -> None:
    """Emptying costs a tenth of a clone."""
    url = scratch.empty()
    _run(url, "INSERT INTO oauth_clients (name, updated_at) VALUES ('left over', now())")

    assert scratch.empty() == url
    assert _count(url) == (0,)


@pytest.mark.parametrize(
    "statements",
    [
        ("ALTER TABLE oauth_clients RENAME TO others",),
        ("ALTER TABLE oauth_clients RENAME TO others", "ALTER TABLE others RENAME TO oauth_clients"),
        ("ALTER TABLE mail_credentials ADD COLUMN odd int", "ALTER TABLE mail_credentials DROP COLUMN odd"),
        ("CREATE FUNCTION odd() RETURNS int LANGUAGE sql AS 'SELECT 1'",),
    ],
    ids=["renamed", "and named back", "a column", "a function"],
)
def test_a_changed_schema_is_not_reused(scratch: Scratch, statements: tuple[str, ...]) -> None:
    """Even a change that was undone leaves traces that the migrations do not make."""
    url = scratch.empty()
    _run(url, *statements)

    clean = scratch.empty()

    assert clean != url
    assert _count(clean) == (0,)
