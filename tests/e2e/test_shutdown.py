"""If a worker ends in the middle of a batch, it stores every response that it has got, and no account is left out."""

import os
import signal
from datetime import timedelta

import pytest

from tests.e2e.installation import Installation, emails, wait_for
from worker.devkit.emulator import Hang
from worker.devkit.stack import keeper
from worker.devkit.stack.process import Process
from worker.domain.account import account_id
from worker.vault import Purpose, Vault, parse_keys

CONNECTIONS = 4  # to Microsoft
LEASE = 60  # seconds; the settings allow no less
LATER = "later@contoso.com"


@pytest.mark.parametrize("receiver", ["the worker", "all its processes"])
def test_sigterm_lets_a_batch_finish_and_stores_every_response(installation: Installation, receiver: str) -> None:
    """Deployments end workers often, and rotated tokens must not be lost. systemd sends SIGTERM to all processes."""
    emulator = installation.emulator
    installation.enrol(*emails(2 * CONNECTIONS))
    emulator.add_fault(Hang(5, after=True), times=CONNECTIONS)  # granted at once, with a late response
    worker = _worker(installation, "worker")
    children = _children(installation) if receiver == "all its processes" else []  # before the batch, as it takes long
    _begin_a_batch(installation, worker)

    for pid in (worker.pid, *children):
        os.kill(pid, signal.SIGTERM)
    status = worker.wait(60)

    assert status == 0, worker.output()[-2000:]
    # The worker alone lets its child finish the batch. A child that gets the signal sends no more requests.
    assert emulator.statistics().refreshes == (CONNECTIONS if children else 2 * CONNECTIONS)
    assert installation.sql("SELECT count(*) FROM mail_credentials WHERE lease_id IS NOT NULL") == [(0,)]
    assert _stored(installation) == {email: emulator.newest_refresh_token(email) for email in emails(2 * CONNECTIONS)}
    with installation.services() as services:
        assert all(services.tokens.get(email).version == 2 for email in emails(2 * CONNECTIONS))
    assert emulator.statistics().requests == 2 * CONNECTIONS, "what was stored is served"


def test_a_killed_child_leaves_its_accounts_to_the_lease(installation: Installation) -> None:
    """The kernel kills a child when memory runs out. Its worker goes on, and no account is refreshed twice."""
    stuck = emails(CONNECTIONS)
    installation.enrol(*stuck)
    installation.emulator.add_fault(Hang(30, after=True), times=CONNECTIONS)
    worker = _worker(installation, "worker")
    children = _children(installation)
    _begin_a_batch(installation, worker)

    for child in children:
        os.kill(child, signal.SIGKILL)
    installation.enrol(LATER)
    _send_batch(installation)
    wait_for(lambda: installation.accounts()[LATER].version == 2, about="the worker to go on", processes=[worker])

    _check_taken_over_when_the_lease_ends(installation, stuck, worker)


def test_the_children_of_a_killed_worker_end_and_another_worker_takes_over(installation: Installation) -> None:
    """After kill -9 of the parent, an operator could not stop a child that went on."""
    stuck = emails(CONNECTIONS)
    installation.enrol(*stuck)
    installation.emulator.add_fault(Hang(30, after=True), times=CONNECTIONS)
    worker = _worker(installation, "mortal")
    children = _children(installation)
    _begin_a_batch(installation, worker)

    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(keeper.exists, children)), about="its children to end")

    _check_taken_over_when_the_lease_ends(installation, stuck, _worker(installation, "heir"))


def _check_taken_over_when_the_lease_ends(installation: Installation, stuck: list[str], worker: Process) -> None:
    """Until then no worker refreshes the accounts. The lease lasts a minute, so the test ends it."""
    leased = "SELECT count(*) FROM mail_credentials WHERE lease_id IS NOT NULL"
    assert installation.sql(leased) == [(len(stuck),)]
    assert installation.sql(f"{leased} AND lease_until BETWEEN now() AND now() + %s", timedelta(seconds=LEASE)) == [
        (len(stuck),)
    ]
    statistics = installation.emulator.statistics().by_account
    assert {statistics[email].requests for email in stuck} == {1}

    installation.sql("UPDATE mail_credentials SET lease_until = now()")
    _send_batch(installation)
    wait_for(installation.all_refreshed, about="their refresh", processes=[worker])
    for email, token in _stored(installation).items():
        assert token == installation.emulator.newest_refresh_token(email)


def _begin_a_batch(installation: Installation, worker: Process) -> None:
    """Wait until the worker has sent as many requests as it has connections."""
    _send_batch(installation)
    wait_for(
        lambda: installation.emulator.statistics().requests == CONNECTIONS, about="its requests", processes=[worker]
    )


def _worker(installation: Installation, name: str) -> Process:
    return installation.worker(name, concurrency=1, WORKER_CONNECTIONS=str(CONNECTIONS), WORKER_LEASE=str(LEASE))


def _send_batch(installation: Installation) -> None:
    installation.send("worker.refresh_batch", queue="refresh")


def _children(installation: Installation) -> list[int]:
    """The ids of the workers' children, by Celery's remote control."""
    with installation.broker() as app:
        stats = wait_for(lambda: app.control.inspect(timeout=1).stats(), about="a worker's reply")
    children = [child for worker in stats.values() for child in worker["pool"]["processes"]]
    assert children
    return children


def _stored(installation: Installation) -> dict[str, str]:
    """The refresh tokens in Postgres, opened."""
    vault = Vault(parse_keys(installation.environment["WORKER_ENCRYPTION_KEYS"]))
    return {
        email: vault.open(account.refresh_token, account_id(email), Purpose.REFRESH_TOKEN).reveal()
        for email, account in installation.accounts().items()
        if account.refresh_token
    }
