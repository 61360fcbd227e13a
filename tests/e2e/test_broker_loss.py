"""Redis is killed under load. The worker survives, finishes its batches, and takes new ones.

The regression test for worker/broker/repair.py. Without the repair, Celery 5.7.0 ends the worker here.
"""

from collections.abc import Iterator

import pytest

from tests.e2e.deployment import Deployment
from tests.factories import emails
from tests.waiting import wait_for
from worker.devkit.emulator import Hang
from worker.devkit.stack import Stack

BATCH = 2
HANG = 12.0  # seconds; longer than Redis is down, shorter than the time limit of a request


@pytest.fixture(name="mortal_stack")
def _mortal_stack(stack: Stack) -> Iterator[Stack]:
    yield stack
    stack.valkey.start()  # the session's other tests need it


def test_a_worker_survives_a_kill_of_redis_under_load(deployment: Deployment, mortal_stack: Stack) -> None:
    """Two batches run and one is reserved in a pool that would take one more: the state in which Celery broke."""
    emulator, redis = deployment.emulator, mortal_stack.valkey
    emulator.add_fault(Hang(HANG), times=2 * BATCH)
    deployment.add_due_accounts(*emails(3 * BATCH))
    worker = deployment.worker(WORKER_BATCH_SIZE=str(BATCH))
    for _ in range(3):
        deployment.send("worker.refresh_batch", queue="refresh")
    wait_for(lambda: emulator.statistics().requests == 2 * BATCH, about="two batches to run", processes=[worker])
    wait_for(lambda: _reserved(deployment) == 1, about="one batch to be reserved", processes=[worker])

    redis.kill()
    wait_for(lambda: "Connection" in worker.output(), about="the worker to notice", processes=[worker])
    redis.start()
    beat = deployment.celery("beat")

    wait_for(deployment.all_refreshed, about="every account to be refreshed", processes=[worker, beat])
    refreshed = emulator.statistics().by_account.values()
    assert [account.requests for account in refreshed] == [1] * 3 * BATCH
    later = "later@contoso.com"
    deployment.add_due_accounts(later)
    wait_for(deployment.all_refreshed, about="new work to be done", processes=[worker, beat])
    assert deployment.environment["WORKER_REDIS_URL"].split("@")[0].rpartition(":")[2] not in worker.output()


def _reserved(deployment: Deployment) -> int:
    with deployment.broker() as app:
        reserved = app.control.inspect(timeout=0.5).reserved() or {}
    return sum(len(tasks) for tasks in reserved.values())
