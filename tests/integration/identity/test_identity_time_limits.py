"""Whoever asks stays away, as a batch does while the stores do not take its answers: only what is waited for counts."""

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.factories import NOW
from tests.integration.identity.asking import opened
from tests.integration.identity.test_identity_pipeline import question
from tests.integration.identity.verbatim import Verbatim
from worker.devkit.emulator import EmulatorServer, Hang
from worker.domain.http import HttpResponse
from worker.domain.outcome import Refreshed
from worker.identity.curl import CurlPool, CurlSession, HttpRequest, TransferError

_SILENCE = 15.0  # seconds the product waits for an answer
_CONNECT = 3.0  # seconds it waits for a connection


@pytest.fixture(name="session")
def _session(says: Verbatim) -> Iterator[CurlSession[str]]:
    with closing(CurlPool(ca_bundle=says.ca_bundle, connections=4)) as pool, CurlSession[str](pool) as session:
        yield session


def test_an_answer_that_came_meanwhile_counts(server: EmulatorServer) -> None:
    """It may hold the only refresh token that is still good, and waits in the socket, complete."""
    ann, bob = (server.emulator.enrol(f"{name}@contoso.com") for name in ("ann", "bob"))
    server.emulator.add_fault(Hang(5), bob.email)

    with opened(server.authority, server.ca_bundle) as identity:
        questions = iter([(each.email, question(each.refresh_token)) for each in (ann, bob)])
        groups = identity.refresh_all(questions, now=lambda: NOW)
        assert [one.key for one in next(groups)] == [ann.email]
        time.sleep(_SILENCE + 0.5)
        [[answered]] = groups

    assert answered.key == bob.email
    assert isinstance(answered.outcome, Refreshed)


def test_a_connection_that_was_begun_before_is_gone_on_with(says: Verbatim, session: CurlSession[str]) -> None:
    """The other side has said its part of the handshake, and waits for ours."""
    says.listens.clear()
    session.start("ann", HttpRequest(says.authority, ()))
    assert session.wait(0.2) == []

    says.listens.set()
    time.sleep(_CONNECT + 0.3)
    [transfer] = session.wait(_CONNECT)

    assert transfer.key == "ann"
    assert isinstance(transfer.result, HttpResponse)


def test_who_says_nothing_is_waited_for_as_long_as_ever(says: Verbatim, session: CurlSession[str]) -> None:
    """To the second, both sides of the absence taken together; who was asked afterwards has a time of its own."""
    says.listens.clear()
    session.start("ann", HttpRequest(says.authority, ()))
    assert session.wait(1) == []
    time.sleep(_CONNECT)
    session.start("bob", HttpRequest(says.authority, ()))

    for name, patience in (("ann", _CONNECT - 1), ("bob", 1)):
        began = time.monotonic()
        [transfer] = session.wait(60)
        assert transfer.key == name
        assert isinstance(transfer.result, TransferError)
        assert transfer.result.code == "connect_timeout"
        assert _CONNECT <= transfer.seconds < _CONNECT + 0.5
        assert patience - 0.2 < time.monotonic() - began < patience + 1
