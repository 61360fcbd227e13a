"""The Postgres of another product, which is only read. Its rows come as JSON, so no column's type must be known."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg.sql import SQL, Identifier

from worker.domain.errors import InvalidInput, Unavailable

_SCHEMES = {"postgres", "postgresql"}
_CONNECT_TIMEOUT = 10  # seconds
_PAGE = 500  # rows
#: Parameters of Prisma's URLs that libpq does not have.
_PRISMAS = {
    "connection_limit",
    "pgbouncer",
    "pool_timeout",
    "schema",
    "socket_timeout",
    "sslaccept",
    "sslidentity",
    "sslpassword",
    "statement_cache_size",
}
_COLUMNS = """
    SELECT table_schema, table_name, column_name FROM information_schema.columns
    WHERE table_schema NOT IN ('information_schema', 'pg_catalog')
        AND (%(schema)s::text IS NULL OR table_schema = %(schema)s)
    ORDER BY table_schema = 'public' DESC, table_schema, table_name, ordinal_position
"""


def squashed(name: str) -> str:
    """The name without case and underscores: ``refresh_token`` and ``refreshToken`` are one."""
    return name.replace("_", "").lower()


@dataclass(frozen=True, slots=True)
class Table:
    """A table, and its columns by their ``squashed`` names."""

    schema: str
    name: str
    columns: dict[str, str]

    @property
    def sql(self) -> Identifier:
        return Identifier(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class Join:
    """``table``'s row, as field ``name``, whose column ``key`` has the value of ``column`` in the row before."""

    name: str
    table: Table
    key: str
    of: str  # the base table's name for its row, or that of an earlier join
    column: str


class ForeignDatabase:
    """One snapshot of it, from ``open_foreign``."""

    def __init__(self, connection: "psycopg.Connection[Any]", schema: str | None) -> None:
        self._connection = connection
        self._schema = schema

    def tables(self) -> list[Table]:
        """All tables and views, those of the schema public first."""
        found: dict[tuple[str, str], dict[str, str]] = {}
        for schema, table, column in self._connection.execute(_COLUMNS, {"schema": self._schema}):
            found.setdefault((schema, table), {})[squashed(column)] = column
        return [Table(schema, name, columns) for (schema, name), columns in found.items()]

    def count(self, table: Table) -> int:
        row = self._connection.execute(SQL("SELECT count(*) FROM {}").format(table.sql)).fetchone()
        assert row
        return int(row[0])

    def rows(self, table: Table, joins: Sequence[Join] = ()) -> Iterator[dict[str, Any]]:
        """The rows as objects, with the row of each join in a field of its name."""
        fields = SQL(" || ").join(
            SQL("jsonb_build_object({}::text, to_jsonb({}))").format(each.name, Identifier(each.name)) for each in joins
        )
        joined = SQL(" ").join(
            SQL("LEFT JOIN {} AS {} ON {} = {}").format(
                each.table.sql,
                Identifier(each.name),
                Identifier(each.name, each.key),
                Identifier(each.of, each.column),
            )
            for each in joins
        )
        statement = SQL("SELECT to_jsonb(base) {} FROM {} AS base {}").format(
            SQL("|| ") + fields if joins else SQL(""), table.sql, joined
        )
        with self._connection.cursor("accounts") as cursor:
            cursor.itersize = _PAGE
            cursor.execute(statement)
            for (row,) in cursor:
                yield row


@contextmanager
def open_foreign(url: str) -> Iterator[ForeignDatabase]:
    """Connect. Raises InvalidInput for a URL that is not Postgres's, Unavailable if the server does not answer."""
    dsn, schema = _libpq(url)
    try:
        connection = psycopg.connect(dsn, connect_timeout=_CONNECT_TIMEOUT)
    except psycopg.Error as error:
        raise Unavailable(f"the other database cannot be used: {_reason(error)}") from None
    with connection:
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        try:
            yield ForeignDatabase(connection, schema)
        except psycopg.Error as error:
            raise Unavailable(f"the other database failed: {_reason(error)}") from None


def _libpq(url: str) -> tuple[str, str | None]:
    """The URL without Prisma's own parameters, and the schema among them."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidInput("the URL of the other database is malformed") from None
    if parts.scheme not in _SCHEMES:
        raise InvalidInput(
            "only Postgres can be read; export the table of another database as CSV or JSON, and name that file"
        )
    query = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(name, value) for name, value in query if name not in _PRISMAS]
    return urlunsplit(parts._replace(query=urlencode(kept))), dict(query).get("schema")


def _reason(error: psycopg.Error) -> str:
    """The first line, which has no password and no row."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
