"""One migrated database for all tests of the statements, emptied before each: cloning one per test costs more."""

from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import pytest
from sqlalchemy import text

from tests.integration.db.rows import Rows, grant
from tests.stores import admin, sibling
from worker.db.session import Database
from worker.devkit.stack import Stack
from worker.domain.credential import Claim


@pytest.fixture(scope="session", name="shared_url")
def _shared_url(stack: Stack, template: str) -> str:
    name = f"rows_{uuid4().hex}"
    with closing(admin(stack)) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return sibling(stack.database_url, name)


@pytest.fixture(name="database")
def _database(shared_url: str) -> Iterator[Database]:
    database = Database(shared_url)
    with database.begin() as connection:
        connection.execute(text("TRUNCATE mail_credentials, refresh_events RESTART IDENTITY"))
    yield database
    database.close()


@pytest.fixture(name="rows")
def _rows(database: Database) -> Rows:
    return Rows(database)


@pytest.fixture(name="claim")
def _claim(rows: Rows) -> Claim:
    """Ann's, held by this worker."""
    rows.save(grant())
    [claim] = rows.claim()
    return claim
