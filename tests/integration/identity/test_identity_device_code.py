"""The sign-in on another device, and refreshing the grant of a public client."""

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.factories import NOW, make_registration
from tests.integration.identity.identities import open_identity, refresh
from tests.integration.identity.scripted_server import RawResponse, ScriptedServer, http_response, token_body
from worker.devkit.emulator import DEFAULT_CLIENT_SECRET, EmulatorServer, oauth_error
from worker.domain.codes import hint
from worker.domain.errors import ConfigurationError, InvalidInput, Unavailable
from worker.domain.outcome import Misconfigured, Refreshed, Scope
from worker.domain.token import Secret
from worker.identity import Identity
from worker.identity.device_flow import DeviceFlow, SignedIn
from worker.identity.registration import ClientCredential

ANN = "ann@contoso.com"
NO_RESPONSES = {
    "503": RawResponse(http_response(503, b'{"error": "server_error"}')),
    "HTML": RawResponse(http_response(200, b"<html>")),
    "hung up": RawResponse(b"", close=True),
}


def sign_in(server: EmulatorServer, identity: Identity) -> SignedIn:
    """Ann enters the code on another device and signs in."""
    flow = identity.start_device_flow("default")
    code = re.search(r"enter the code (\S+)\.", flow.message)
    assert code
    server.emulator.approve_device(code[1], ANN)
    return flow.wait(lambda: NOW)


def test_a_code_entered_elsewhere_signs_a_mailbox_in(server: EmulatorServer) -> None:
    """The grant is refreshed like any other."""
    with open_identity(server.authority, server.ca_bundle) as identity:
        signed_in = sign_in(server, identity)

        assert signed_in.username == ANN
        assert isinstance(refresh(identity, signed_in.refresh_token.reveal()), Refreshed)


@pytest.mark.parametrize("code", ["700025", "90023"])
def test_a_grant_of_a_public_client_is_refreshed_without_the_credential(server: EmulatorServer, code: str) -> None:
    """Microsoft refuses a secret there. One account of that kind must not look like a wrong registration."""
    with open_identity(server.authority, server.ca_bundle) as identity:
        signed_in = sign_in(server, identity)
        server.emulator.add_fault(oauth_error(code), ANN, times=1)

        assert isinstance(refresh(identity, signed_in.refresh_token.reveal()), Refreshed)

    assert server.emulator.statistics().failures == 1


def test_a_grant_of_a_public_client_is_recognized_by_the_next_credential_too(server: EmulatorServer) -> None:
    """While a secret is rotated, Microsoft may refuse it before it looks at the grant."""
    secrets = (ClientCredential(secret=Secret("expired")), ClientCredential(secret=Secret(DEFAULT_CLIENT_SECRET)))
    with open_identity(server.authority, server.ca_bundle, credentials=secrets) as identity:
        signed_in = sign_in(server, identity)
        server.emulator.add_fault(oauth_error("7000215"), ANN, times=1)
        server.emulator.add_fault(oauth_error("700025"), ANN, times=1)

        assert isinstance(refresh(identity, signed_in.refresh_token.reveal()), Refreshed)

    assert server.emulator.statistics().failures == 2


@pytest.mark.parametrize("code", ["700025", "90023"])
@pytest.mark.parametrize("second", ["700025", "90023", "7000218", "7000215", "50194"])
def test_a_public_client_that_is_refused_too_leaves_the_registration_alone(
    server: EmulatorServer, code: str, second: str
) -> None:
    """The registration's breaker stays closed, and the outcome is the first refusal."""
    grant = server.emulator.enrol(ANN)
    server.emulator.add_fault(oauth_error(code), ANN, times=1)
    server.emulator.add_fault(oauth_error(second), ANN)

    with open_identity(server.authority, server.ca_bundle) as identity:
        outcome = refresh(identity, grant.refresh_token)

    assert isinstance(outcome, Misconfigured)
    assert (outcome.code, outcome.scope) == (f"AADSTS{code}", Scope.ACCOUNT)


def test_without_the_credential_the_grant_itself_is_judged(server: EmulatorServer) -> None:
    """The second response is about the grant, the first was about how it was requested."""
    grant = server.emulator.enrol(ANN)
    server.emulator.add_fault(oauth_error("90023"), ANN, times=1)
    server.emulator.add_fault(oauth_error("50173"), ANN)

    with open_identity(server.authority, server.ca_bundle) as identity:
        assert refresh(identity, grant.refresh_token).code == "AADSTS50173"


@pytest.mark.parametrize("reply", [http_response(503, b""), http_response(200, b"<html>")], ids=["503", "HTML"])
def test_a_sign_in_that_cannot_start_is_one_sentence(
    scripted: ScriptedServer, identity: Identity, reply: bytes
) -> None:
    """Its reader is no developer."""
    scripted.discovery = RawResponse(reply)

    with pytest.raises(ConfigurationError, match="device code flow cannot be started"):
        identity.start_device_flow(make_registration().name)


def begin(scripted: ScriptedServer, identity: Identity, *, expires_in: int) -> DeviceFlow:
    """A sign-in at a scripted platform, polled every second."""
    code = {"user_code": "ABC", "device_code": "a-device-code", "message": "Enter it.", "interval": 1}
    scripted.publish(device_authorization_endpoint=f"{scripted.authority}/oauth2/v2.0/devicecode")
    scripted.token = RawResponse(http_response(200, json.dumps({**code, "expires_in": expires_in}).encode()))
    return identity.start_device_flow("default")


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("silence", NO_RESPONSES.values(), ids=NO_RESPONSES)
def test_a_sign_in_outlasts_an_outage_of_the_platform(
    scripted: ScriptedServer, identity: Identity, silence: RawResponse
) -> None:
    """The user types for minutes. An outage between two polls must not discard the sign-in."""
    flow = begin(scripted, identity, expires_in=60)
    scripted.token = silence

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(flow.wait, lambda: NOW)
        until(lambda: waiting.done() or len(scripted.posts()) > 1)
        scripted.token = RawResponse(http_response(200, token_body()))

        assert waiting.result(10).refresh_token == Secret("a-refresh-token")


@pytest.mark.parametrize("silence", NO_RESPONSES.values(), ids=NO_RESPONSES)
def test_a_platform_that_stays_down_is_one_sentence(
    scripted: ScriptedServer, identity: Identity, silence: RawResponse
) -> None:
    """The error says that the platform is unavailable, not that the user has declined."""
    flow = begin(scripted, identity, expires_in=1)
    scripted.token = silence

    with pytest.raises(Unavailable, match="does not answer"):
        flow.wait(lambda: NOW)


def test_a_declined_sign_in_ends_at_once(scripted: ScriptedServer, identity: Identity) -> None:
    """The worker does not poll again."""
    flow = begin(scripted, identity, expires_in=60)
    scripted.token = RawResponse(http_response(400, b'{"error": "authorization_declined"}'))

    with pytest.raises(InvalidInput, match="authorization_declined"):
        flow.wait(lambda: NOW)
    assert len(scripted.posts()) == 2


@pytest.mark.parametrize("code", ["AADSTS530084", "AADSTS500341", "AADSTS90099", "AADSTS70000"])
def test_a_refused_sign_in_says_why(scripted: ScriptedServer, identity: Identity, code: str) -> None:
    """The operator at the terminal gets the code and what to do about it, even if the description is not UTF-8."""
    flow = begin(scripted, identity, expires_in=60)
    body = f'{{"error": "invalid_grant", "error_description": "{code}: \u00e9chec"}}'.encode("latin-1")
    scripted.token = RawResponse(http_response(400, body))

    with pytest.raises(InvalidInput) as refusal:
        flow.wait(lambda: NOW)

    assert str(refusal.value) == f"the sign-in did not finish ({code}). {hint(code)}"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8-sig", "utf-16"])
def test_tokens_in_any_encoding_end_the_sign_in(scripted: ScriptedServer, identity: Identity, encoding: str) -> None:
    """A user does not sign in twice for the sake of one byte."""
    flow = begin(scripted, identity, expires_in=60)
    body = token_body(display="~").decode().replace("~", "\u00e9t\u00e9").encode(encoding)
    scripted.token = RawResponse(http_response(200, body))

    assert flow.wait(lambda: NOW).refresh_token == Secret("a-refresh-token")
