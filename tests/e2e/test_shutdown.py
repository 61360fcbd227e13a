"""However a worker ends in the middle of a batch, no answer it was given is lost and no account is forgotten."""

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

THREADS = 4  # questions at a time
LEASE = 60  # seconds; the shortest that is allowed
LATER = "later@contoso.com"


@pytest.mark.parametrize("told", ["the worker", "all its processes"])
def test_sigterm_lets_a_batch_finish_and_stores_every_answer(installation: Installation, told: str) -> None:
    """Deployments end workers all day; what Microsoft has just rotated must not end with them. systemd tells all."""
    emulator = installation.emulator
    installation.enrol(*emails(2 * THREADS))
    emulator.add_fault(Hang(5, after=True), times=THREADS)  # granted at once, answered late
    worker = _worker(installation, "worker")
    children = _children(installation) if told == "all its processes" else []  # it takes seconds to learn them
    _begin_a_batch(installation, worker)

    for pid in (worker.pid, *children):
        os.kill(pid, signal.SIGTERM)
    status = worker.wait(60)

    assert status == 0, worker.output()[-2000:]
    # The worker alone finishes its batch; a child that is told itself asks nothing more, and gives the rest back.
    assert emulator.statistics().refreshes == (THREADS if children else 2 * THREADS)
    assert installation.sql("SELECT count(*) FROM mail_credentials WHERE lease_id IS NOT NULL") == [(0,)]
    assert _stored(installation) == {email: emulator.newest_refresh_token(email) for email in emails(2 * THREADS)}
    with installation.services() as services:
        assert all(services.tokens.get(email).version == 2 for email in emails(2 * THREADS))
    assert emulator.statistics().requests == 2 * THREADS, "what was stored is served"


def test_a_killed_child_leaves_its_accounts_to_the_lease(installation: Installation) -> None:
    """kill -9 of a child, as the kernel does when memory runs out: its worker goes on, and nobody asks twice."""
    stuck = emails(THREADS)
    installation.enrol(*stuck)
    installation.emulator.add_fault(Hang(30, after=True), times=THREADS)
    worker = _worker(installation, "worker")
    children = _children(installation)
    _begin_a_batch(installation, worker)

    for child in children:
        os.kill(child, signal.SIGKILL)
    installation.enrol(LATER)
    _send_batch(installation)
    wait_for(lambda: installation.accounts()[LATER].version == 2, about="the worker to go on", processes=[worker])

    _check_taken_over_when_the_lease_ends(installation, stuck, worker)


def test_a_killed_worker_takes_its_children_along_and_another_takes_over(installation: Installation) -> None:
    """kill -9 of the parent: a child left alone would go on spending claims that nobody can stop."""
    stuck = emails(THREADS)
    installation.enrol(*stuck)
    installation.emulator.add_fault(Hang(30, after=True), times=THREADS)
    worker = _worker(installation, "mortal")
    children = _children(installation)
    _begin_a_batch(installation, worker)

    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(keeper.exists, children)), about="its children to end")

    _check_taken_over_when_the_lease_ends(installation, stuck, _worker(installation, "heir"))


def _check_taken_over_when_the_lease_ends(installation: Installation, stuck: list[str], worker: Process) -> None:
    """Until then nobody asks for them; waiting for it would take a minute, so it is moved to now."""
    leased = "SELECT count(*) FROM mail_credentials WHERE lease_id IS NOT NULL"
    assert installation.sql(leased) == [(len(stuck),)]
    assert installation.sql(f"{leased} AND lease_until BETWEEN now() AND now() + %s", timedelta(seconds=LEASE)) == [
        (len(stuck),)
    ]
    asked = installation.emulator.statistics().by_account
    assert {asked[email].requests for email in stuck} == {1}

    installation.sql("UPDATE mail_credentials SET lease_until = now()")
    _send_batch(installation)
    wait_for(installation.all_refreshed, about="their refresh", processes=[worker])
    for email, token in _stored(installation).items():
        assert token == installation.emulator.newest_refresh_token(email)


def _begin_a_batch(installation: Installation, worker: Process) -> None:
    """It has asked as much as it can at a time."""
    _send_batch(installation)
    wait_for(lambda: installation.emulator.statistics().requests == THREADS, about="its questions", processes=[worker])


def _worker(installation: Installation, name: str) -> Process:
    return installation.worker(name, concurrency=1, WORKER_CONNECTIONS=str(THREADS), WORKER_LEASE=str(LEASE))


def _send_batch(installation: Installation) -> None:
    installation.send("worker.refresh_batch", queue="refresh")


def _children(installation: Installation) -> list[int]:
    """The ids of the workers' children, as the workers tell."""
    with installation.broker() as app:
        told = wait_for(lambda: app.control.inspect(timeout=1).stats(), about="a worker to tell")
    children = [child for worker in told.values() for child in worker["pool"]["processes"]]
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
