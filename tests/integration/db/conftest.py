"""Statements on a migrated, empty database."""

from collections.abc import Iterator

import pytest

from tests.integration.db.rows import Rows, grant
from worker.db.session import Database
from worker.domain.account import Lease


@pytest.fixture(name="database")
def _database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture(name="rows")
def _rows(database: Database) -> Rows:
    return Rows(database)


@pytest.fixture(name="lease")
def _lease(rows: Rows) -> Lease:
    """The lease on Ann's account, held by this worker."""
    rows.save(grant())
    [lease] = rows.lease_due()
    return lease
