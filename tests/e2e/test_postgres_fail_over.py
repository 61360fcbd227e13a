"""The name of Postgres leads to a read-only copy for some seconds. The worker finds the primary again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.deployment import Deployment
from tests.factories import emails
from tests.fail_over import FailOver, postgres_fail_over
from tests.waiting import wait_for

RECOVERY = 10.0  # seconds from the end of the fault to the refresh of an account that is due


@pytest.fixture(name="fail_over")
def _fail_over(tmp_path: Path) -> Iterator[FailOver]:
    with postgres_fail_over(tmp_path / "postgres") as fail_over:
        yield fail_over


def test_a_worker_recovers(deployment: Deployment, fail_over: FailOver) -> None:
    """Its sweeps fail while nothing can be leased. With a pool that keeps connections it never leases again."""
    deployment.environment["WORKER_DATABASE_URL"] = fail_over.proxy.url
    processes = [worker, _beat] = [deployment.worker(), deployment.celery("beat")]
    deployment.add_due_accounts(*emails(2))
    wait_for(deployment.all_refreshed, about="the first refresh", processes=processes)

    fail_over.begin()
    wait_for(lambda: "Postgres is read-only" in worker.output(), about="a sweep to fail", processes=processes)
    swept = worker.output().count("worker.sweep")
    wait_for(lambda: worker.output().count("worker.sweep") > swept + 2, about="further sweeps", processes=processes)
    fail_over.end()
    deployment.add_due_accounts("later@contoso.com")

    wait_for(deployment.all_refreshed, about="work after the fault", processes=processes, seconds=RECOVERY)
