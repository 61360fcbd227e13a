"""What the emulator tells a mail server about an access token (RFC 7662), over real TLS."""

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


class Asker:
    """A resource server, as it asks where discovery sends it."""

    def __init__(self, server: EmulatorServer) -> None:
        context = ssl.create_default_context(cafile=server.ca_bundle)
        self.pool = urllib3.PoolManager(ssl_context=context, retries=False, timeout=HANG_LIMIT)
        discovery = f"{server.authority}/v2.0/.well-known/openid-configuration"
        self.endpoint = str(self.pool.request("GET", discovery).json()["introspection_endpoint"])

    def ask(self, token: str, headers: Mapping[str, str] = BASIC, **form: str) -> tuple[int, Any]:
        fields = {"token": token, **form}
        answer = self.pool.request("POST", self.endpoint, fields=fields, headers=headers, encode_multipart=False)
        return answer.status, json.loads(answer.data)


@pytest.fixture(name="asker")
def _asker(server: EmulatorServer) -> Iterator[Asker]:
    asker = Asker(server)
    yield asker
    asker.pool.clear()


def test_a_live_token_tells_whose_it_is_and_what_it_is_for(emulator: Emulator, asker: Asker) -> None:
    grant = emulator.enrol(ANN, access_token_lifetime=timedelta(seconds=90))
    status, told = asker.ask(grant.access_token)
    assert (status, told["active"], told["username"]) == (200, True, ANN)
    assert (told["scope"], told["aud"]) == ("IMAP.AccessAsUser.All SMTP.Send", "https://outlook.office.com")
    assert told["exp"] == (emulator.clock() + timedelta(seconds=90)).timestamp()


def test_an_expired_token_is_inactive_and_nothing_else(emulator: Emulator, asker: Asker, clock: TurnedClock) -> None:
    """By the emulator's own clock, to the second."""
    grant = emulator.enrol(ANN, access_token_lifetime=timedelta(seconds=90))
    clock.advance(seconds=89)
    assert asker.ask(grant.access_token)[1]["active"] is True
    clock.advance(seconds=1)
    assert asker.ask(grant.access_token) == (200, {"active": False})


def test_what_the_emulator_did_not_sign_is_inactive(emulator: Emulator, asker: Asker) -> None:
    signed = emulator.enrol(ANN).access_token
    for token in ("", "no token", signed[:-9] + "A" * 9):
        assert asker.ask(token) == (200, {"active": False})


def test_a_refresh_token_is_inactive(emulator: Emulator, asker: Asker) -> None:
    assert asker.ask(emulator.enrol(ANN).refresh_token) == (200, {"active": False})


def test_a_client_may_prove_itself_in_the_form(emulator: Emulator, asker: Asker) -> None:
    token = emulator.enrol(ANN).access_token
    status, told = asker.ask(token, {}, client_id=DEFAULT_CLIENT_ID, client_secret=DEFAULT_CLIENT_SECRET)
    assert (status, told["active"]) == (200, True)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (urllib3.make_headers(basic_auth=f"{DEFAULT_CLIENT_ID}:wrong"), 7000215),
        ({"authorization": "Basic %%%"}, 900144),
        ({}, 900144),
    ],
)
def test_nobody_else_is_told_anything(emulator: Emulator, asker: Asker, headers: Mapping[str, str], code: int) -> None:
    _status, told = asker.ask(emulator.enrol(ANN).access_token, headers)
    assert (told["error_codes"], "active" in told) == ([code], False)


def test_a_client_that_names_itself_without_proof_is_told_nothing(emulator: Emulator, asker: Asker) -> None:
    status, told = asker.ask(emulator.enrol(ANN).access_token, {}, client_id=DEFAULT_CLIENT_ID)
    assert (status, told["error_codes"]) == (401, [7000218])


def test_asking_is_no_token_request(emulator: Emulator, asker: Asker) -> None:
    asker.ask(emulator.enrol(ANN).access_token)
    assert emulator.statistics().requests == 0
