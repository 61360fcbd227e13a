"""If a worker ends in the middle of a batch, it stores every response that it has got, and no account is left out."""

import os
import signal
from datetime import timedelta

import pytest

from tests.e2e.deployment import Deployment
from tests.factories import emails
from tests.waiting import HANG_LIMIT, wait_for
from worker.devkit.emulator import Hang
from worker.devkit.stack import keeper
from worker.devkit.stack.process import Process
from worker.domain.binding import binding_of
from worker.vault import Purpose, Vault, parse_keys

CONNECTIONS = 4  # to Microsoft
LEASE = 170  # seconds; the longest that is allowed, because the test ends the lease itself
LATER = "later@contoso.com"


@pytest.mark.parametrize("receiver", ["the worker", "all its processes"])
def test_sigterm_lets_a_batch_finish_and_stores_every_response(deployment: Deployment, receiver: str) -> None:
    """Deployments end workers often, and rotated tokens must not be lost. systemd sends SIGTERM to all processes."""
    emulator = deployment.emulator
    deployment.add_due_accounts(*emails(2 * CONNECTIONS))
    emulator.add_fault(Hang(8, after=True), times=CONNECTIONS)  # granted at once; the worker waits 15 s
    worker = _worker(deployment, "worker")
    children = _children(deployment) if receiver == "all its processes" else []  # before the batch, as it takes long
    _begin_a_batch(deployment, worker)

    for pid in (worker.pid, *children):
        os.kill(pid, signal.SIGTERM)
    status = worker.wait(HANG_LIMIT)

    assert status == 0, worker.output()[-2000:]
    # The worker alone lets its child finish the batch. A child that gets the signal sends no more requests.
    assert emulator.statistics().refreshes == (CONNECTIONS if children else 2 * CONNECTIONS)
    assert deployment.sql("SELECT count(*) FROM mail_credentials WHERE lease_id IS NOT NULL") == [(0,)]
    assert _stored(deployment) == {email: emulator.newest_refresh_token(email) for email in emails(2 * CONNECTIONS)}
    with deployment.services() as services:
        assert all(services.tokens.get(email).version == 2 for email in emails(2 * CONNECTIONS))
    assert emulator.statistics().requests == 2 * CONNECTIONS, "what was stored is served"


def test_a_killed_child_leaves_its_accounts_to_the_lease(deployment: Deployment) -> None:
    """The kernel kills a child when memory runs out. Its worker goes on, and no account is refreshed twice."""
    stuck = emails(CONNECTIONS)
    deployment.add_due_accounts(*stuck)
    deployment.emulator.add_fault(Hang(30, after=True), times=CONNECTIONS)
    worker = _worker(deployment, "worker")
    children = _children(deployment)
    _begin_a_batch(deployment, worker)

    for child in children:
        os.kill(child, signal.SIGKILL)
    deployment.add_due_accounts(LATER)
    _send_batch(deployment)
    wait_for(lambda: deployment.accounts()[LATER].version == 2, about="the worker to go on", processes=[worker])

    _check_taken_over_when_the_lease_ends(deployment, stuck, worker)


def test_the_children_of_a_killed_worker_end_and_another_worker_takes_over(deployment: Deployment) -> None:
    """After kill -9 of the parent, an operator could not stop a child that went on."""
    stuck = emails(CONNECTIONS)
    deployment.add_due_accounts(*stuck)
    deployment.emulator.add_fault(Hang(30, after=True), times=CONNECTIONS)
    worker = _worker(deployment, "mortal")
    children = _children(deployment)
    _begin_a_batch(deployment, worker)

    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(keeper.exists, children)), about="its children to end")

    _check_taken_over_when_the_lease_ends(deployment, stuck, _worker(deployment, "heir"))


def _check_taken_over_when_the_lease_ends(deployment: Deployment, stuck: list[str], worker: Process) -> None:
    """Until then no worker refreshes them. The test moves the end of the lease to now instead of waiting."""
    leased = "SELECT count(*) FROM mail_credentials WHERE lease_id IS NOT NULL"
    assert deployment.sql(leased) == [(len(stuck),)]
    assert deployment.sql(f"{leased} AND lease_until BETWEEN now() AND now() + %s", timedelta(seconds=LEASE)) == [
        (len(stuck),)
    ]
    statistics = deployment.emulator.statistics().by_account
    assert {statistics[email].requests for email in stuck} == {1}

    deployment.sql("UPDATE mail_credentials SET lease_until = now()")
    _send_batch(deployment)
    wait_for(deployment.all_refreshed, about="their refresh", processes=[worker])
    for email, token in _stored(deployment).items():
        assert token == deployment.emulator.newest_refresh_token(email)


def _begin_a_batch(deployment: Deployment, worker: Process) -> None:
    """Wait until the worker has sent as many requests as it has connections."""
    _send_batch(deployment)
    wait_for(lambda: deployment.emulator.statistics().requests == CONNECTIONS, about="its requests", processes=[worker])


def _worker(deployment: Deployment, name: str) -> Process:
    return deployment.worker(name, concurrency=1, WORKER_CONNECTIONS=str(CONNECTIONS), WORKER_LEASE=str(LEASE))


def _send_batch(deployment: Deployment) -> None:
    deployment.send("worker.refresh_batch", queue="refresh")


def _children(deployment: Deployment) -> list[int]:
    """The ids of the workers' children, by Celery's remote control."""
    with deployment.broker() as app:
        stats = wait_for(lambda: app.control.inspect(timeout=1).stats(), about="a worker's reply")
    children = [child for worker in stats.values() for child in worker["pool"]["processes"]]
    assert children
    return children


def _stored(deployment: Deployment) -> dict[str, str]:
    """The refresh tokens in Postgres, opened."""
    vault = Vault(parse_keys(deployment.environment["WORKER_ENCRYPTION_KEYS"]))
    return {
        email: vault.open(account.refresh_token, account.id, Purpose.REFRESH_TOKEN, binding_of(account)).reveal()
        for email, account in deployment.accounts().items()
        if account.refresh_token
    }
