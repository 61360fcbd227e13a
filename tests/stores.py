"""Real Postgres and Valkey, one pair per test process; a fresh database and an empty Redis per test."""

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


@pytest.fixture(scope="session", name="stack")
def _stack() -> Iterator[Stack]:
    with Stack(durable=False) as stack:
        yield stack


def admin(stack: Stack) -> psycopg.Connection:
    """A connection outside any test's database."""
    url = stack.database_url.replace("postgresql+psycopg://", "postgresql://")
    return psycopg.connect(url, autocommit=True)


def sibling(url: str, database: str) -> str:
    """The same server, another database."""
    return f"{url.rpartition('/')[0]}/{database}"


@pytest.fixture(scope="session", name="template")
def _template(stack: Stack) -> str:
    """A migrated database to clone: migrating once and copying pages is far quicker than migrating per test."""
    with closing(admin(stack)) as connection:
        connection.execute("CREATE DATABASE template_worker")
    config = Config(ROOT / "alembic.ini")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKER_DATABASE_URL", sibling(stack.database_url, "template_worker"))
        command.upgrade(config, "head")
    return "template_worker"


@pytest.fixture(name="database_url")
def _database_url(stack: Stack, template: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    # Connected only for a moment each time, because some tests end the server meanwhile.
    with closing(admin(stack)) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield sibling(stack.database_url, name)
    with closing(admin(stack)) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(name="redis_url")
def _redis_url(stack: Stack) -> str:
    with redis.Redis.from_url(stack.redis_url) as client:
        client.flushall()
    return stack.redis_url
