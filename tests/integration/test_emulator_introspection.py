"""The emulator's response to a mail server about an access token (RFC 7662), over real TLS."""

import json
import ssl
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
import urllib3

from tests.constants import ANN
from tests.factories import TurnedClock
from tests.waiting import HANG_LIMIT
from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Emulator, EmulatorServer

BASIC = urllib3.make_headers(basic_auth=f"{DEFAULT_CLIENT_ID}:{DEFAULT_CLIENT_SECRET}")


class ResourceServer:
    """A resource server that sends its request to the endpoint of the discovery document."""

    def __init__(self, server: EmulatorServer) -> None:
        context = ssl.create_default_context(cafile=server.ca_bundle)
        self.pool = urllib3.PoolManager(ssl_context=context, retries=False, timeout=HANG_LIMIT)
        discovery = f"{server.authority}/v2.0/.well-known/openid-configuration"
        self.endpoint = str(self.pool.request("GET", discovery).json()["introspection_endpoint"])

    def introspect(self, token: str, headers: Mapping[str, str] = BASIC, **form: str) -> tuple[int, Any]:
        fields = {"token": token, **form}
        answer = self.pool.request("POST", self.endpoint, fields=fields, headers=headers, encode_multipart=False)
        return answer.status, json.loads(answer.data)


@pytest.fixture(name="resource_server")
def _resource_server(server: EmulatorServer) -> Iterator[ResourceServer]:
    resource_server = ResourceServer(server)
    yield resource_server
    resource_server.pool.clear()


def test_a_live_token_is_active_with_its_user_and_scopes(emulator: Emulator, resource_server: ResourceServer) -> None:
    grant = emulator.enrol(ANN, access_token_lifetime=timedelta(seconds=90))
    status, body = resource_server.introspect(grant.access_token)
    assert (status, body["active"], body["username"]) == (200, True, ANN)
    assert (body["scope"], body["aud"]) == ("IMAP.AccessAsUser.All SMTP.Send", "https://outlook.office.com")
    assert body["exp"] == (emulator.clock() + timedelta(seconds=90)).timestamp()


def test_an_expired_token_is_only_inactive(
    emulator: Emulator, resource_server: ResourceServer, clock: TurnedClock
) -> None:
    """The time is that of the emulator's own clock, to the second."""
    grant = emulator.enrol(ANN, access_token_lifetime=timedelta(seconds=90))
    clock.advance(seconds=89)
    assert resource_server.introspect(grant.access_token)[1]["active"] is True
    clock.advance(seconds=1)
    assert resource_server.introspect(grant.access_token) == (200, {"active": False})


def test_a_token_with_another_signature_is_inactive(emulator: Emulator, resource_server: ResourceServer) -> None:
    signed = emulator.enrol(ANN).access_token
    for token in ("", "no token", signed[:-9] + "A" * 9):
        assert resource_server.introspect(token) == (200, {"active": False})


def test_a_refresh_token_is_inactive(emulator: Emulator, resource_server: ResourceServer) -> None:
    assert resource_server.introspect(emulator.enrol(ANN).refresh_token) == (200, {"active": False})


def test_a_client_may_authenticate_in_the_form(emulator: Emulator, resource_server: ResourceServer) -> None:
    token = emulator.enrol(ANN).access_token
    status, body = resource_server.introspect(
        token, {}, client_id=DEFAULT_CLIENT_ID, client_secret=DEFAULT_CLIENT_SECRET
    )
    assert (status, body["active"]) == (200, True)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (urllib3.make_headers(basic_auth=f"{DEFAULT_CLIENT_ID}:wrong"), 7000215),
        ({"authorization": "Basic %%%"}, 900144),
        ({}, 900144),
    ],
)
def test_other_callers_are_rejected(
    emulator: Emulator, resource_server: ResourceServer, headers: Mapping[str, str], code: int
) -> None:
    _status, body = resource_server.introspect(emulator.enrol(ANN).access_token, headers)
    assert (body["error_codes"], "active" in body) == ([code], False)


def test_a_client_id_without_a_secret_is_rejected(emulator: Emulator, resource_server: ResourceServer) -> None:
    status, body = resource_server.introspect(emulator.enrol(ANN).access_token, {}, client_id=DEFAULT_CLIENT_ID)
    assert (status, body["error_codes"]) == (401, [7000218])


def test_an_introspection_does_not_count_as_a_token_request(
    emulator: Emulator, resource_server: ResourceServer
) -> None:
    resource_server.introspect(emulator.enrol(ANN).access_token)
    assert emulator.statistics().requests == 0
