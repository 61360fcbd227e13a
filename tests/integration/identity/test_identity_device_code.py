"""Signing in on another device, and what becomes of a grant that was given to the app as a public client."""

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.factories import NOW, make_registration
from tests.integration.identity.asking import ask, opened
from tests.integration.identity.verbatim import Reply, Verbatim, answer, granted
from worker.devkit.emulator import EmulatorServer, oauth_error
from worker.domain.errors import ConfigurationError, InvalidInput, Unavailable
from worker.domain.outcome import Misconfigured, Refreshed, Scope
from worker.domain.secret import Secret
from worker.identity import Identity
from worker.identity.client import DeviceFlow, SignedIn

ANN = "ann@contoso.com"
NO_ANSWERS = {
    "503": Reply(answer(503, b'{"error": "server_error"}')),
    "HTML": Reply(answer(200, b"<html>")),
    "hung up": Reply(b"", close=True),
}


def sign_in(server: EmulatorServer, identity: Identity) -> SignedIn:
    """Ann enters the code on another device, and says who she is."""
    flow = identity.start_device_flow("default")
    code = re.search(r"enter the code (\S+)\.", flow.message)
    assert code
    server.emulator.approve_device(code[1], ANN)
    return flow.wait(lambda: NOW)


def test_a_code_entered_elsewhere_signs_a_mailbox_in(server: EmulatorServer) -> None:
    """What comes of it is a grant like any other: it is refreshed."""
    with opened(server.authority, server.ca_bundle) as identity:
        signed_in = sign_in(server, identity)

        assert signed_in.username == ANN
        assert isinstance(ask(identity, signed_in.refresh_token.reveal()), Refreshed)


def test_a_grant_of_a_public_client_is_asked_for_without_the_credential(server: EmulatorServer) -> None:
    """Microsoft refuses a secret there; one account of that kind must not look like a wrong registration."""
    with opened(server.authority, server.ca_bundle) as identity:
        signed_in = sign_in(server, identity)
        server.emulator.add_fault(oauth_error("700025"), ANN, times=1)

        assert isinstance(ask(identity, signed_in.refresh_token.reveal()), Refreshed)

    assert server.emulator.statistics().failures == 1


def test_if_that_is_refused_too_it_is_about_this_account(server: EmulatorServer) -> None:
    """The breaker of the registration stays closed."""
    grant = server.emulator.enrol(ANN)
    server.emulator.add_fault(oauth_error("700025"), ANN)

    with opened(server.authority, server.ca_bundle) as identity:
        outcome = ask(identity, grant.refresh_token)

    assert isinstance(outcome, Misconfigured)
    assert (outcome.code, outcome.scope) == ("AADSTS700025", Scope.TENANT)


@pytest.mark.parametrize("reply", [answer(503, b""), answer(200, b"<html>")], ids=["503", "HTML"])
def test_a_sign_in_that_cannot_begin_is_one_sentence(says: Verbatim, identity: Identity, reply: bytes) -> None:
    """Whoever sits before it is no developer."""
    says.discovery = Reply(reply)

    with pytest.raises(ConfigurationError, match="device code flow cannot be started"):
        identity.start_device_flow(make_registration().name)


def begin(says: Verbatim, identity: Identity, *, expires_in: int) -> DeviceFlow:
    """A sign-in at a platform that says what it is told; it is polled every second."""
    code = {"user_code": "ABC", "device_code": "a-device-code", "message": "Enter it.", "interval": 1}
    document = says.document(device_authorization_endpoint=f"{says.authority}/oauth2/v2.0/devicecode")
    says.discovery = Reply(answer(200, json.dumps(document).encode()))
    says.token = Reply(answer(200, json.dumps({**code, "expires_in": expires_in}).encode()))
    return identity.start_device_flow("default")


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("silence", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_a_sign_in_outlasts_a_platform_that_is_away(says: Verbatim, identity: Identity, silence: Reply) -> None:
    """The user types for minutes; what comes between two polls must not cost what they have typed."""
    flow = begin(says, identity, expires_in=60)
    says.token = silence

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(flow.wait, lambda: NOW)
        until(lambda: waiting.done() or len(says.posts()) > 1)
        says.token = Reply(answer(200, granted()))

        assert waiting.result(10).refresh_token == Secret("a-refresh-token")


@pytest.mark.parametrize("silence", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_a_platform_that_stays_away_is_one_sentence(says: Verbatim, identity: Identity, silence: Reply) -> None:
    """When the code has expired; and it was not the user who declined."""
    flow = begin(says, identity, expires_in=1)
    says.token = silence

    with pytest.raises(Unavailable, match="does not answer"):
        flow.wait(lambda: NOW)


def test_a_user_who_declines_ends_it(says: Verbatim, identity: Identity) -> None:
    """At once: an answer is an answer."""
    flow = begin(says, identity, expires_in=60)
    says.token = Reply(answer(400, b'{"error": "authorization_declined"}'))

    with pytest.raises(InvalidInput, match="authorization_declined"):
        flow.wait(lambda: NOW)
    assert len(says.posts()) == 2
