"""The name of Postgres leads to a read-only replica for a while. Writers find the primary again, readers stay."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.factories import emails
from tests.fail_over import FailOver, postgres_fail_over
from tests.integration.db.rows import Rows, grant
from worker.bootstrap import bootstrap
from worker.db.session import Database
from worker.domain.errors import DatabaseUnavailable
from worker.settings import Settings

MANY = 200  # grants; so many new ones are stored by COPY


@pytest.fixture(scope="module", name="fail_over")
def _fail_over(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailOver]:
    with postgres_fail_over(tmp_path_factory.mktemp("fail-over")) as fail_over:
        yield fail_over


@pytest.fixture(name="moved")
def _moved(fail_over: FailOver) -> Iterator[Rows]:
    """Statements at the replica, over connections that the pool keeps."""
    with closing(Database(fail_over.proxy.url)) as database:
        rows = Rows(database)
        fail_over.begin()
        rows.sql("SELECT 1")
        yield rows
        fail_over.end()


@pytest.mark.parametrize("grants", [1, MANY], ids=["INSERT", "COPY"])
def test_a_write_that_meets_a_replica_connects_anew(fail_over: FailOver, moved: Rows, grants: int) -> None:
    """The connection itself is sound, so pre-ping would keep it for ever."""
    new = [grant(email) for email in emails(grants)]
    with pytest.raises(DatabaseUnavailable, match="Postgres is read-only"):
        moved.save(*new)
    fail_over.end()

    assert len(moved.save(*new)) == grants


def test_a_reader_may_stay_at_a_replica(fail_over: FailOver, moved: Rows) -> None:
    """A consumer that only reads may use a replica on purpose."""
    [(pid,)] = moved.sql("SELECT pg_backend_pid()")
    fail_over.end()

    assert moved.sql("SELECT pg_backend_pid()") == [(pid,)]


def test_a_sweep_fails_at_a_replica_though_nothing_is_due(fail_over: FailOver, settings: Settings) -> None:
    """A replica shows what was due when it was last up to date. A sweep that counts there would seem to succeed."""
    with closing(Database(fail_over.primary)) as primary:
        Rows(primary).save(grant())
    moved = settings.model_validate({**settings.model_dump(), "database_url": fail_over.proxy.url})
    with closing(bootstrap(moved)) as services:
        fail_over.begin()
        with pytest.raises(DatabaseUnavailable, match="Postgres is read-only"):
            services.refresher.batches_due(limit=1)
        fail_over.end()

        assert services.refresher.batches_due(limit=1) == ["default"]
