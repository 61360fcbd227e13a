"""Beat, a worker and a child of its pool that hang are ended, with one log line, and replaced."""

import os
import signal
from pathlib import Path

import pytest

from tests.constants import ANN, BOB
from tests.e2e.deployment import BIN, Deployment
from tests.stores import ROOT
from tests.waiting import wait_for
from worker.devkit.stack import Stack
from worker.devkit.stack.process import Process

HANGS = "The main loop hangs although all stores answer; this process ends"
REPLACED = "A child of the pool takes no task; it is killed and replaced"
FAILED = 1  # exit code


def start(deployment: Deployment, *arguments: str) -> Process:
    command = [str(BIN / "celery"), "-A", "tests.e2e.hanging", *arguments]
    return deployment.start(command, PYTHONPATH=str(ROOT))


@pytest.fixture(name="beat")
def _beat(deployment: Deployment) -> Process:
    beat = start(deployment, "beat")
    wait_for(lambda: "Sending due task" in beat.output(), about="a tick", processes=[beat])
    return beat


@pytest.fixture(name="worker")
def _worker(deployment: Deployment) -> Process:
    worker = start(deployment, "worker", "--concurrency", "1")
    wait_for(lambda: " ready." in worker.output(), about="the worker to be ready", processes=[worker])
    return worker


def hang(pid: int) -> None:
    os.kill(pid, signal.SIGRTMIN)


def child_of(pid: int) -> int:
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def test_a_beat_that_hangs_ends(beat: Process) -> None:
    hang(beat.pid)

    assert wait_for(lambda: not beat.alive(), about="the end of beat")
    assert beat.wait(0) == FAILED
    assert beat.output().count(HANGS) == 1


def test_a_worker_that_hangs_ends(worker: Process) -> None:
    child = child_of(worker.pid)
    hang(worker.pid)

    assert wait_for(lambda: not worker.alive(), about="the end of the worker")
    assert worker.output().count(HANGS) == 1
    assert wait_for(lambda: not Path(f"/proc/{child}").exists(), about="the end of its child")


def test_a_child_that_hangs_is_replaced(deployment: Deployment, worker: Process, beat: Process) -> None:
    """It hangs between two tasks, where Celery's time limit does not count."""
    deployment.add_due_accounts(ANN)
    wait_for(deployment.all_refreshed, about="a refresh", processes=[worker, beat])

    hang(child_of(worker.pid))
    deployment.add_due_accounts(BOB)

    wait_for(deployment.all_refreshed, about="a refresh by another child", processes=[worker, beat])
    assert REPLACED in worker.output()
    assert HANGS not in worker.output()


def test_a_loop_that_waits_for_a_store_goes_on(worker: Process, beat: Process, stack: Stack) -> None:
    """Redis hangs for longer than the limit. Both wait for it, and work again afterwards."""
    stack.valkey.pause()
    try:
        for process in (worker, beat):
            assert process.wait(5.0) is None, process.output()
    finally:
        stack.valkey.resume()
    swept = worker.output().count("Task worker.sweep")

    wait_for(
        lambda: worker.output().count("Task worker.sweep") > swept + 1, about="work again", processes=[worker, beat]
    )
    assert HANGS not in worker.output() + beat.output()
