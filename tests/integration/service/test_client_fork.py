"""A web server loads the application, opens the client and then forks. Parent and children each go on by themselves."""

import gc
import os
import signal
import threading
import traceback
from collections.abc import Callable

import pytest

from tests.constants import ANN, BOB
from tests.integration.installation import Installation
from worker.client import ClientClosed, TokenClient

# The tests fork with threads on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

_TIMEOUT = 20  # seconds


def _in_child(work: Callable[[], None]) -> None:
    """Do the work after a real fork. The test fails if it fails there."""
    child = os.fork()
    if child == 0:
        status = 1
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_TIMEOUT)  # a child that waits for a lost lock would wait for ever
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - no exception may get out of the child into pytest
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_a_child_uses_connections_of_its_own(installation: Installation, client: TokenClient) -> None:
    """The parent's connections still work afterwards, whether or not the child has closed its client."""
    installation.sign_in(ANN)
    installation.sign_in(BOB, due=True)
    installation.services.redis.flushall()
    client.get(ANN)  # reads Postgres
    installation.services.redis.flushall()
    installation.clock.advance(seconds=11)
    before = _server_side(installation)

    def work() -> None:
        assert client.get(ANN).version == 1
        gc.collect()  # objects without a reference are closed, which must not close the parent's session at the server
        assert client.get(BOB).version == 2
        assert client.get_many([ANN, BOB])
        client.close()
        try:
            client.get(ANN)
        except ClientClosed:
            return
        raise AssertionError

    _in_child(work)

    assert _server_side(installation) >= before, "the parent's connections were not ended by the child"
    installation.clock.advance(seconds=11)
    installation.services.redis.flushall()
    assert client.get(ANN).version == 1
    assert client.get(BOB).version == 2
    assert installation.requests == 1


def _server_side(installation: Installation) -> set[int]:
    """The process ids of Postgres for the connections to this database."""
    rows = installation.query(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return {pid for (pid,) in rows}


def test_a_fork_while_threads_work_leaves_no_lock_behind(installation: Installation, client: TokenClient) -> None:
    """Other threads hold the client's locks at that moment, and do not exist in the child to release them."""
    installation.sign_in(ANN)
    stopped = threading.Event()

    def hammer() -> None:
        while not stopped.is_set():
            client.get(ANN)

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        with client._process._lock:
            _in_child(lambda: _expect(client))
        for _ in range(10):
            _in_child(lambda: _expect(client))
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def _expect(client: TokenClient) -> None:
    assert client.get(ANN).version == 1


def test_a_client_that_was_never_used_is_opened_by_each_process(
    installation: Installation, client: TokenClient
) -> None:
    """The usual case: the client is created at import and first used by a request."""
    installation.sign_in(ANN)
    _in_child(lambda: _expect(client))
    _expect(client)
