"""The caller may do other work, e.g. wait for the stores. Only the time spent waiting for a response counts."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.factories import NOW
from tests.integration.identity.identities import open_identity, token_request
from tests.integration.identity.scripted_server import ScriptedServer
from worker.devkit.emulator import EmulatorServer, Hang
from worker.domain.http import HttpResponse
from worker.domain.outcome import Refreshed
from worker.identity.curl import CurlPool, CurlSession, HttpRequest, TransferError

_SILENCE = 15.0  # seconds until a response must be complete
_CONNECT = 3.0  # seconds until a connection must be established


@pytest.fixture(name="session")
def _session(scripted: ScriptedServer) -> Iterator[CurlSession[str]]:
    with closing(CurlPool(ca_bundle=scripted.ca_bundle, connections=4)) as pool, CurlSession[str](pool) as session:
        yield session


def test_a_response_that_arrived_in_the_meantime_counts(server: EmulatorServer) -> None:
    """The response may hold the only refresh token that still works, and is complete in the socket."""
    ann, bob = (server.emulator.enrol(f"{name}@contoso.com") for name in ("ann", "bob"))
    server.emulator.add_fault(Hang(5), bob.email)

    with open_identity(server.authority, server.ca_bundle) as identity:
        requests = iter([(each.email, token_request(each.refresh_token)) for each in (ann, bob)])
        groups = identity.refresh_all(requests, now=lambda: NOW)
        assert [one.key for one in next(groups)] == [ann.email]
        time.sleep(_SILENCE + 0.5)
        [[response]] = groups

    assert response.key == bob.email
    assert isinstance(response.outcome, Refreshed)


def test_a_handshake_that_was_interrupted_is_continued(scripted: ScriptedServer, session: CurlSession[str]) -> None:
    """The server has sent its part of the handshake and waits for the client's."""
    scripted.accepts.clear()
    session.start("ann", HttpRequest(scripted.authority, ()))
    assert session.wait(0.2) == []

    scripted.accepts.set()
    time.sleep(_CONNECT + 0.3)
    [transfer] = session.wait(_CONNECT)

    assert transfer.key == "ann"
    assert isinstance(transfer.result, HttpResponse)


def test_a_silent_server_gets_its_full_time_limit(scripted: ScriptedServer, session: CurlSession[str]) -> None:
    """The waiting before and after the interruption adds up exactly. A later request has a time limit of its own."""
    scripted.accepts.clear()
    session.start("ann", HttpRequest(scripted.authority, ()))
    assert session.wait(1) == []
    time.sleep(_CONNECT)
    session.start("bob", HttpRequest(scripted.authority, ()))

    for name, limit in (("ann", _CONNECT - 1), ("bob", 1)):
        began = time.monotonic()
        [transfer] = session.wait(60)
        assert transfer.key == name
        assert isinstance(transfer.result, TransferError)
        assert transfer.result.code == "connect_timeout"
        assert _CONNECT <= transfer.seconds < _CONNECT + 0.5
        assert limit - 0.2 < time.monotonic() - began < limit + 1


@pytest.fixture(name="uninterrupted")
def _uninterrupted() -> Iterator[None]:
    """Threads keep the interpreter until they wait for I/O."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(60)
    yield
    sys.setswitchinterval(usual)


def _occupy_the_interpreter(seconds: float) -> None:
    time.sleep(0.1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_time_in_which_a_process_was_suspended_does_not_count(
    scripted: ScriptedServer, session: CurlSession[str], uninterrupted: None
) -> None:
    """A suspended machine or a busy interpreter must not make a response late that could not be read before."""
    scripted.accepts.clear()
    session.start("ann", HttpRequest(scripted.authority, ()))
    busy = threading.Thread(target=_occupy_the_interpreter, args=(_CONNECT + 0.5,))
    busy.start()
    began = time.monotonic()

    assert session.wait(0.5) == []

    assert time.monotonic() - began > _CONNECT
    busy.join()
    scripted.accepts.set()
    [transfer] = session.wait(_CONNECT)
    assert isinstance(transfer.result, HttpResponse)
