"""Reasons of Postgres for a refusal, each with the statement that an operator can run.

Postgres gives a code to most errors, but none to those of the connection. Their text is in the server's language, so
another language costs the remedy and nothing else.
"""

import re
from collections.abc import Callable

from psycopg import sql

READ_ONLY = "25006"  #: SQLSTATE of a standby, or of a primary that was demoted
UNKNOWN_ROLE = "<user>"  #: in a statement, for the operator to replace
_DENIED = "42501"  # SQLSTATE
_NO_DATABASE = re.compile(r'database "(.+)" does not exist')
_MAY_NOT_CONNECT = re.compile(r'permission denied for database "?([^"]+)"?')
_MAY_NOT_USE = re.compile(r"permission denied for (table|sequence|schema) (.+)")
_NOT_OWNER = re.compile(r"must be owner of")
_WRONG_PASSWORD = re.compile(r"password authentication failed")

_ALL = {"table": "SELECT, INSERT, UPDATE, DELETE", "sequence": "USAGE", "schema": "USAGE, CREATE"}


def reason(error: BaseException, role: str) -> str:
    """An error of psycopg in one sentence, with its remedy. ``role`` is the user of the connection.

    It has the driver's first line only, because the rest may repeat statement and parameters.
    """
    if getattr(error, "sqlstate", None) == READ_ONLY:
        return "Postgres is read-only, as a replica is; WORKER_DATABASE_URL must lead to the primary"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    mending = _remedy(error, role)
    return f"{lines[0]}; {mending}" if mending else lines[0]


def _remedy(error: BaseException, role: str) -> str:
    message = str(error)
    for pattern, write in _REMEDIES:
        if found := pattern.search(message):
            return write(found, role)
    if getattr(error, "sqlstate", None) == _DENIED:
        return "run: token-worker doctor, which names each missing GRANT"
    return ""


def grant(privileges: str, kind: str, name: str, role: str) -> str:
    """The statement that gives rights on a table, sequence, schema or database."""
    what = sql.SQL("GRANT {} ON {} {} TO {}").format(
        sql.SQL(privileges),
        sql.SQL(kind.upper()),
        sql.Identifier(name),
        sql.Identifier(role),
    )
    return _plain(what)


def _plain(statement: sql.Composed) -> str:
    """The statement without quotes around names that need none."""
    return re.sub(r'"([a-z_][a-z0-9_]*)"', r"\1", statement.as_string())


def _create_database(found: re.Match[str], role: str) -> str:
    create = sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(found[1]), sql.Identifier(role))
    return f"run as a superuser: {_plain(create)}"


def _grant(found: re.Match[str], role: str) -> str:
    kind, name = found[1], found[2].strip('"')
    return f"run as its owner: {grant(_ALL[kind], kind, name, role)}"


_REMEDIES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], str], str]], ...] = (
    (_NO_DATABASE, _create_database),
    (_MAY_NOT_CONNECT, lambda found, role: f"run as its owner: {grant('CONNECT', 'database', found[1], role)}"),
    (_MAY_NOT_USE, _grant),
    (_NOT_OWNER, lambda _found, _role: "run token-worker migrate as the owner of the tables"),
    (_WRONG_PASSWORD, lambda _found, _role: "correct user and password in WORKER_DATABASE_URL"),
)
