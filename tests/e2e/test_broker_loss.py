"""Redis is killed under load. The worker survives, finishes its batches, and takes new ones.

The regression test for worker/broker/repair.py. Without the repair, Celery 5.7.0 ends the worker here.
"""

from collections.abc import Iterator

import pytest

from tests.e2e.installation import Installation, emails, wait_for
from worker.devkit.emulator import Hang
from worker.devkit.stack import Stack

BATCH = 2
HANG = 12.0  # seconds; longer than Redis is down, shorter than the time limit of a request


@pytest.fixture(name="mortal_stack")
def _mortal_stack(stack: Stack) -> Iterator[Stack]:
    yield stack
    stack.valkey.start()  # the session's other tests need it


def test_a_worker_survives_a_kill_of_redis_under_load(installation: Installation, mortal_stack: Stack) -> None:
    """Two batches run and one is reserved in a pool that would take one more: the state in which Celery broke."""
    emulator, redis = installation.emulator, mortal_stack.valkey
    emulator.add_fault(Hang(HANG), times=2 * BATCH)
    installation.enrol(*emails(3 * BATCH))
    worker = installation.worker(WORKER_BATCH_SIZE=str(BATCH))
    for _ in range(3):
        installation.send("worker.refresh_batch", queue="refresh")
    wait_for(lambda: emulator.statistics().requests == 2 * BATCH, about="two batches to run", processes=[worker])
    wait_for(lambda: _reserved(installation) == 1, about="one batch to be reserved", processes=[worker])

    redis.kill()
    wait_for(lambda: "Connection" in worker.output(), about="the worker to notice", processes=[worker])
    redis.start()
    beat = installation.celery("beat")

    wait_for(installation.all_refreshed, about="every account to be refreshed", processes=[worker, beat])
    refreshed = emulator.statistics().by_account.values()
    assert [account.requests for account in refreshed] == [1] * 3 * BATCH
    later = "later@contoso.com"
    installation.enrol(later)
    wait_for(installation.all_refreshed, about="new work to be done", processes=[worker, beat])
    assert installation.environment["WORKER_REDIS_URL"].split("@")[0].rpartition(":")[2] not in worker.output()


def _reserved(installation: Installation) -> int:
    with installation.broker() as app:
        reserved = app.control.inspect(timeout=0.5).reserved() or {}
    return sum(len(tasks) for tasks in reserved.values())
