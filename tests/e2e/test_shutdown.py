"""However a worker ends in the middle of a batch, no answer it was given is lost and no account is forgotten."""

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
from worker.domain.account import account_id
from worker.vault import Purpose, Vault, parse_keys

THREADS = 4  # questions at a time
LEASE = 170  # seconds; the longest allowed, because the test ends the lease itself
LATER = "later@contoso.com"


@pytest.mark.parametrize("told", ["the worker", "all its processes"])
def test_sigterm_lets_a_batch_finish_and_stores_every_answer(deployment: Deployment, told: str) -> None:
    """Deployments end workers all day; what Microsoft has just rotated must not end with them. systemd tells all."""
    emulator = deployment.emulator
    deployment.add_due_accounts(*emails(2 * THREADS))
    emulator.add_fault(Hang(8, after=True), times=THREADS)  # granted at once, answered late; a worker waits for 15 s
    worker = _worker(deployment, "worker")
    children = _children(deployment) if told == "all its processes" else []  # it takes seconds to learn them
    _begin_a_batch(deployment, worker)

    for pid in (worker.pid, *children):
        os.kill(pid, signal.SIGTERM)
    status = worker.wait(HANG_LIMIT)

    assert status == 0, worker.output()[-2000:]
    # The worker alone finishes its batch; a child that is told itself asks nothing more, and gives the rest back.
    assert emulator.statistics().refreshes == (THREADS if children else 2 * THREADS)
    assert deployment.sql("SELECT count(*) FROM mail_credentials WHERE lease_id IS NOT NULL") == [(0,)]
    assert _stored(deployment) == {email: emulator.newest_refresh_token(email) for email in emails(2 * THREADS)}
    with deployment.services() as services:
        assert all(services.tokens.get(email).version == 2 for email in emails(2 * THREADS))
    assert emulator.statistics().requests == 2 * THREADS, "what was stored is served"


def test_a_killed_child_leaves_its_accounts_to_the_lease(deployment: Deployment) -> None:
    """kill -9 of a child, as the kernel does when memory runs out: its worker goes on, and nobody asks twice."""
    stuck = emails(THREADS)
    deployment.add_due_accounts(*stuck)
    deployment.emulator.add_fault(Hang(30, after=True), times=THREADS)
    worker = _worker(deployment, "worker")
    children = _children(deployment)
    _begin_a_batch(deployment, worker)

    for child in children:
        os.kill(child, signal.SIGKILL)
    deployment.add_due_accounts(LATER)
    _send_batch(deployment)
    wait_for(lambda: deployment.accounts()[LATER].version == 2, about="the worker to go on", processes=[worker])

    _check_taken_over_when_the_lease_ends(deployment, stuck, worker)


def test_a_killed_worker_takes_its_children_along_and_another_takes_over(deployment: Deployment) -> None:
    """kill -9 of the parent: a child left alone would go on spending claims that nobody can stop."""
    stuck = emails(THREADS)
    deployment.add_due_accounts(*stuck)
    deployment.emulator.add_fault(Hang(30, after=True), times=THREADS)
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
    asked = deployment.emulator.statistics().by_account
    assert {asked[email].requests for email in stuck} == {1}

    deployment.sql("UPDATE mail_credentials SET lease_until = now()")
    _send_batch(deployment)
    wait_for(deployment.all_refreshed, about="their refresh", processes=[worker])
    for email, token in _stored(deployment).items():
        assert token == deployment.emulator.newest_refresh_token(email)


def _begin_a_batch(deployment: Deployment, worker: Process) -> None:
    """It has asked as much as it can at a time."""
    _send_batch(deployment)
    wait_for(lambda: deployment.emulator.statistics().requests == THREADS, about="its questions", processes=[worker])


def _worker(deployment: Deployment, name: str) -> Process:
    return deployment.worker(name, concurrency=1, WORKER_THREADS=str(THREADS), WORKER_LEASE=str(LEASE))


def _send_batch(deployment: Deployment) -> None:
    deployment.send("worker.refresh_batch", queue="refresh")


def _children(deployment: Deployment) -> list[int]:
    """The ids of the workers' children, as the workers tell."""
    with deployment.broker() as app:
        told = wait_for(lambda: app.control.inspect(timeout=1).stats(), about="a worker to tell")
    children = [child for worker in told.values() for child in worker["pool"]["processes"]]
    assert children
    return children


def _stored(deployment: Deployment) -> dict[str, str]:
    """The refresh tokens in Postgres, opened."""
    vault = Vault(parse_keys(deployment.environment["WORKER_ENCRYPTION_KEYS"]))
    return {
        email: vault.open(account.refresh_token, account_id(email), Purpose.REFRESH_TOKEN).reveal()
        for email, account in deployment.accounts().items()
        if account.refresh_token
    }
