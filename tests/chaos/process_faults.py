"""Faults of workers and beats. Each function injects its fault, ends it, and returns the number of occurrences."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tests.chaos.fleet import CONNECTIONS, LIFETIME, Fleet, until
from tests.waiting import wait_for
from worker.clock import utcnow
from worker.devkit.emulator import Hang
from worker.devkit.stack import keeper

_HOLD_PERSIST = """
    CREATE OR REPLACE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END $$;
    CREATE TRIGGER hold BEFORE UPDATE ON mail_credentials FOR EACH ROW
    WHEN (OLD.access_token IS DISTINCT FROM NEW.access_token) EXECUTE FUNCTION hold()
"""
_HELD = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


def child_killed(fleet: Fleet) -> int:
    """As the kernel does when memory runs out: after one request, next time after two, and so on."""
    fleet.until_requested(1 + fleet.injections % CONNECTIONS)
    with fleet.killing_workers():
        _kill(fleet.children("one"))
    return 1


def parent_killed(fleet: Fleet) -> int:
    fleet.until_requested(1 + fleet.injections % CONNECTIONS)
    children = fleet.children("one")
    with fleet.killing_workers():
        _kill([fleet.workers["one"].pid])
        wait_for(lambda: not any(map(keeper.exists, children)), about="the children to end")
    fleet.start_worker("one")
    return 1


def child_killed_before_the_commit(fleet: Fleet) -> int:
    """Microsoft has responded and nothing is stored. The new tokens are lost, and the old refresh token must do."""
    with fleet.killing_workers(), _persist_held(fleet):
        fleet.make_due()
        until(lambda: fleet.deployment.sql(_HELD) != [(0,)], about="a persist to be held")
        _kill([*fleet.children("one"), *fleet.children("two")])
    return 2


def child_killed_and_left_to_the_lease(fleet: Fleet) -> int:
    """The lease ends by itself, and another worker takes over."""
    killed_at = utcnow()
    with _persist_held(fleet):
        fleet.make_due()
        until(lambda: fleet.deployment.sql(_HELD) != [(0,)], about="a persist to be held")
        _kill([*fleet.children("one"), *fleet.children("two")])
    fleet.record_lost(since=killed_at)
    return 2


def worker_terminated(fleet: Fleet) -> int:
    """SIGTERM to the worker alone, mid-batch, and a new one is started."""
    return _end(fleet, with_children=False)


def service_terminated(fleet: Fleet) -> int:
    """SIGTERM to all its processes, as a service manager sends it."""
    return _end(fleet, with_children=True)


def two_beats(fleet: Fleet) -> int:
    fleet.start_beat()
    second = fleet.beats[-1]
    wait_for(lambda: second.output().count("Sending due task") >= 2, about="the second beat", processes=[second])
    for _ in range(3):
        fleet.cycle()
    fleet.beats.remove(second)
    second.kill()
    return 1


def beat_killed_for_longer_than_a_token_lives(fleet: Fleet) -> int:
    """Consumers refresh on demand."""
    fleet.stop_beats()
    fleet.pass_time(LIFETIME[1].total_seconds() + 5)
    fleet.start_beat()
    return 1


def _end(fleet: Fleet, *, with_children: bool) -> int:
    """The first responses are slow, so that SIGTERM comes in the middle of a batch. Microsoft has made the grants."""
    fleet.emulator.add_fault(Hang(1.0, after=True), times=CONNECTIONS)
    fleet.until_requested(1 + fleet.injections % CONNECTIONS)
    fleet.emulator.clear_faults()
    worker = fleet.workers["one"]
    for pid in [worker.pid, *(fleet.children("one") if with_children else [])]:
        os.kill(pid, signal.SIGTERM)
    status = worker.wait(60)
    assert status == 0, f"ended with {status}: {worker.output()[-2000:]}"
    fleet.start_worker("one")
    return 1


@contextmanager
def _persist_held(fleet: Fleet) -> Iterator[None]:
    """Inside the block, a worker that stores new tokens waits in the statement."""
    with fleet.admin_connection() as connection:
        connection.execute(_HOLD_PERSIST)
        connection.execute("SELECT pg_advisory_lock(1)")
        try:
            yield
        finally:
            connection.execute("SELECT pg_advisory_unlock(1)")
            connection.execute("DROP TRIGGER hold ON mail_credentials")


def _kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
