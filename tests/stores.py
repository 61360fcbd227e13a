"""Real Postgres and Valkey, one pair per test process. Each test gets an empty database and an empty Redis."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import redis
from alembic.config import Config

from alembic import command
from worker.devkit.stack import Stack

ROOT = Path(__file__).parents[1]

_TABLES = "audit_events, mail_credentials, oauth_clients, pauses, refresh_events, refresh_successes"

_THROW_OUT = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
# The transactions that wrote the catalog's rows. Of pg_class only the names, because TRUNCATE changes its rows.
_SCHEMA = """
    SELECT (SELECT string_agg(concat(oid, relname), ' ' ORDER BY oid) FROM pg_class WHERE relkind IN ('r', 'i')),
    (SELECT sum(xmin::text::bigint) FROM pg_attribute), (SELECT sum(xmin::text::bigint) FROM pg_constraint),
    (SELECT sum(xmin::text::bigint) FROM pg_trigger), (SELECT sum(xmin::text::bigint) FROM pg_proc),
    (SELECT sum(xmin::text::bigint) FROM pg_type), (SELECT sum(xmin::text::bigint) FROM pg_db_role_setting)
"""


@pytest.fixture(scope="session", name="stack")
def _stack() -> Iterator[Stack]:
    with Stack(durable=False) as stack:
        yield stack


def admin(stack: Stack) -> psycopg.Connection:
    """A connection to no test's database."""
    url = stack.database_url.replace("postgresql+psycopg://", "postgresql://")
    return psycopg.connect(url, autocommit=True)


def sibling(url: str, database: str) -> str:
    """The URL of another database on the same server."""
    return f"{url.rpartition('/')[0]}/{database}"


@pytest.fixture(scope="session", name="template")
def _template(stack: Stack) -> str:
    """A migrated database to clone, because a copy is much faster than a migration."""
    with closing(admin(stack)) as connection:
        connection.execute("CREATE DATABASE template_worker")
    config = Config(ROOT / "alembic.ini")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKER_DATABASE_URL", sibling(stack.database_url, "template_worker"))
        command.upgrade(config, "head")
    return "template_worker"


class Scratch:
    """A migrated database that is emptied for each test, in a tenth of the time of a clone. It is cloned again after a
    test that has changed the schema, even if the test has undone the change."""

    def __init__(self, stack: Stack, template: str) -> None:
        self._stack = stack
        self._template = template
        self._name = ""
        self._schema: object = None

    def empty(self) -> str:
        """Empty the database and close all other connections to it. Returns its URL."""
        if not self._name or not self._emptied():
            self._clone()
        return sibling(self._stack.database_url, self._name)

    def _emptied(self) -> bool:
        """Empty the database if its schema is unchanged. Returns whether it was."""
        with closing(self._connected()) as connection:
            connection.execute(_THROW_OUT)
            if connection.execute(_SCHEMA).fetchone() != self._schema:
                return False
            connection.execute(f"TRUNCATE {_TABLES} RESTART IDENTITY")
        return True

    def _clone(self) -> None:
        # The connections are short, because some tests end the server in between.
        with closing(admin(self._stack)) as connection:
            if self._name:
                connection.execute(f"DROP DATABASE {self._name} WITH (FORCE)")
            self._name = f"test_{uuid4().hex}"
            connection.execute(f"CREATE DATABASE {self._name} TEMPLATE {self._template}")
        with closing(self._connected()) as connection:
            self._schema = connection.execute(_SCHEMA).fetchone()

    def _connected(self) -> psycopg.Connection:
        url = sibling(self._stack.database_url, self._name)
        return psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://"), autocommit=True)


@pytest.fixture(scope="session", name="scratch")
def _scratch(stack: Stack, template: str) -> Scratch:
    return Scratch(stack, template)


@pytest.fixture(name="database_url")
def _database_url(scratch: Scratch) -> str:
    return scratch.empty()


@pytest.fixture(name="redis_url")
def _redis_url(stack: Stack) -> str:
    with redis.Redis.from_url(stack.redis_url) as client:
        client.flushall()
    return stack.redis_url
