"""On-demand refreshes come before sweeps, and sweeps before batches, because consumers wait for the former."""

import json
import re
from pathlib import Path
from typing import Any

import redis

from tests.e2e.deployment import Deployment
from tests.factories import emails
from tests.waiting import wait_for
from worker.devkit.emulator import Hang
from worker.domain.account import account_id

README = (Path(__file__).parents[2] / "README.md").read_text()
URGENT = [f"urgent{number}@contoso.com" for number in range(3)]
TAKEN = 2  # one batch runs, one is reserved


def test_an_on_demand_refresh_overtakes_all_that_is_queued(deployment: Deployment) -> None:
    """Batches and sweeps were queued before it, and the only child is busy. It still comes next."""
    emulator, due = deployment.emulator, emails(12)
    deployment.add_due_accounts(*due, *URGENT)
    deployment.sql(
        "UPDATE mail_credentials SET refresh_due_at = refresh_due_at + interval '1 h' WHERE email = ANY(%s)", URGENT
    )
    emulator.add_fault(Hang(12), times=1)
    worker = deployment.worker(concurrency=1, WORKER_BATCH_SIZE="1")

    with deployment.broker() as app:
        for _ in due:
            app.send_task("worker.refresh_batch", queue="refresh")
        wait_for(lambda: len(_received(worker.output())) == TAKEN, about="a batch to run and one to be reserved")
        app.send_task("worker.sweep", queue="sweep")  # of several, the first would do the work of the others
        for email in URGENT:
            app.send_task("worker.refresh_account", (str(account_id(email)),), queue="ondemand")
    assert emulator.statistics().successes == 0, "all this was queued while the first batch ran"
    wait_for(deployment.all_refreshed, about="every account to be refreshed", processes=[worker])

    overtaking = ["refresh_account"] * len(URGENT) + ["sweep"]
    batches = ["refresh_batch"] * (len(due) - TAKEN)
    assert _received(worker.output())[TAKEN:][: len(overtaking + batches)] == overtaking + batches
    assert _requested(deployment)[TAKEN : TAKEN + len(URGENT)] == URGENT


def test_a_worker_for_on_demand_refreshes_serves_nothing_else(deployment: Deployment) -> None:
    """Started as in the README. The messages of other queues stay there."""
    [queues] = set(re.findall(r"(?:worker|with) `?(-Q ondemand)`", README))
    deployment.add_due_accounts(URGENT[0], *emails(3))
    worker = deployment.worker("urgent", *queues.split(), concurrency=1)

    deployment.send("worker.refresh_batch", queue="refresh")
    deployment.send("worker.sweep", queue="sweep")
    deployment.send("worker.refresh_account", str(account_id(URGENT[0])), queue="ondemand")
    wait_for(lambda: deployment.accounts()[URGENT[0]].version == 2, about="its refresh", processes=[worker])

    assert _received(worker.output()) == ["refresh_account"]
    assert _requested(deployment) == [URGENT[0]]
    assert (_queued(deployment, "refresh"), _queued(deployment, "sweep")) == (["refresh_batch"], ["sweep"])


def test_each_kind_of_work_waits_in_its_own_queue(deployment: Deployment) -> None:
    """An operator may give the queues to different workers. Beat sends to one queue, and sweeps send to another."""
    deployment.add_due_accounts(*emails(3))
    worker = deployment.worker("sweeper", "-Q", "sweep", concurrency=1, WORKER_BATCH_SIZE="1")
    beat = deployment.celery("beat")

    wait_for(lambda: _queued(deployment, "refresh"), about="batches", processes=[worker, beat])
    beat.stop()
    worker.stop()

    # It may have been time to prune just now.
    assert set(_queued(deployment, "refresh")) - {"prune_events"} == {"refresh_batch"}
    assert _queued(deployment, "ondemand") == []
    assert set(_received(worker.output())) == {"sweep"}


def _received(log: str) -> list[str]:
    """The names of the tasks a worker has taken from its queues, in order."""
    return re.findall(r"Task worker\.(\w+)\[[\w-]+\] received", log)


def _requested(deployment: Deployment) -> list[str]:
    """The accounts of the token requests, in order."""
    by_account = deployment.emulator.statistics().by_account
    instants = [(instant, email) for email, account in by_account.items() for instant in account.instants]
    return [email for _, email in sorted(instants)]


def _queued(deployment: Deployment, queue: str) -> list[str]:
    """The names of the tasks that wait in a queue."""
    with redis.Redis.from_url(deployment.environment["WORKER_REDIS_URL"]) as client:
        messages: Any = client.lrange(queue, 0, -1)
    return [json.loads(message)["headers"]["task"].removeprefix("worker.") for message in messages]
