"""The emulator over real TLS, with requests of real MSAL and of a plain client."""

import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import msal
import pytest
import trustme
import urllib3
from freezegun import freeze_time

from tests.waiting import HANG_LIMIT, wait_for
from worker.devkit.emulator import (
    DEFAULT_CLIENT_ID,
    DEFAULT_CLIENT_SECRET,
    EmulatorServer,
    Hang,
    Registration,
    Reset,
    oauth_error,
)

EMAIL = "ada@example.com"
SCOPES = ["https://outlook.office.com/IMAP.AccessAsUser.All"]


class Response:
    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
        self.status_code, self.text, self.headers = answer.status, answer.data.decode(), answer.headers

    def raise_for_status(self) -> None:
        assert self.status_code < 400


class Http:
    """The methods that MSAL needs of an HTTP client. It does not read the environment."""

    def __init__(self, server: EmulatorServer) -> None:
        context = ssl.create_default_context(cafile=server.ca_bundle)
        self.pool = urllib3.PoolManager(ssl_context=context, retries=False, timeout=HANG_LIMIT)
        self.base_url = server.base_url

    def get(self, url: str, params: Any = None, headers: Any = None, **_: Any) -> Response:
        return Response(self.pool.request("GET", url, fields=params, headers=headers, redirect=False))

    def post(self, url: str, data: Any = None, headers: Any = None, timeout: Any = HANG_LIMIT, **_: Any) -> Response:
        answer = self.pool.request("POST", url, fields=data, headers=headers, encode_multipart=False, timeout=timeout)
        return Response(answer)

    def admin(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        url = f"{self.base_url}/_emulator/{path}"
        answer = self.pool.request(method, url, body=None if body is None else json.dumps(body))
        return json.loads(answer.data) | {"_status": answer.status}

    def close(self) -> None:
        self.pool.clear()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmulatorServer]:
    with EmulatorServer(tmp_path) as running:
        yield running


@pytest.fixture
def http(server: EmulatorServer) -> Iterator[Http]:
    client = Http(server)
    yield client
    client.close()


def confidential(server: EmulatorServer, http: Http, credential: object = DEFAULT_CLIENT_SECRET) -> Any:
    return msal.ConfidentialClientApplication(
        DEFAULT_CLIENT_ID,
        client_credential=credential,
        authority=server.authority,
        instance_discovery=False,
        http_client=http,
    )


def form(refresh_token: str) -> dict[str, str]:
    return {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "client_id": DEFAULT_CLIENT_ID,
        "client_secret": DEFAULT_CLIENT_SECRET,
    }


def test_msal_refreshes_through_a_microsoft_authority(server: EmulatorServer, http: Http) -> None:
    """MSAL can use the whole response."""
    grant = server.emulator.enrol(EMAIL)
    result = confidential(server, http).acquire_token_by_refresh_token(grant.refresh_token, SCOPES)
    assert result["refresh_token"] == server.emulator.newest_refresh_token(EMAIL) != grant.refresh_token
    assert result["id_token_claims"]["preferred_username"] == EMAIL


def test_msal_refreshes_through_a_generic_oidc_authority(server: EmulatorServer, http: Http) -> None:
    """MSAL compares the issuer with scheme, host and port."""
    app = msal.ConfidentialClientApplication(
        DEFAULT_CLIENT_ID,
        client_credential=DEFAULT_CLIENT_SECRET,
        oidc_authority=server.oidc_authority,
        http_client=http,
    )
    result = app.acquire_token_by_refresh_token(server.emulator.enrol(EMAIL).refresh_token, SCOPES)
    issuer = json.loads(http.get(f"{server.oidc_authority}/.well-known/openid-configuration").text)["issuer"]
    assert result["id_token_claims"]["iss"] == issuer


def test_the_published_keys_verify_an_access_token(server: EmulatorServer, http: Http) -> None:
    """A mail server could verify our tokens."""
    grant = server.emulator.enrol(EMAIL)
    discovery = json.loads(http.get(f"{server.authority}/v2.0/.well-known/openid-configuration").text)
    key = jwt.PyJWKSet.from_json(http.get(discovery["jwks_uri"]).text).keys[0]
    claims = jwt.decode(grant.access_token, key, ["RS256"], audience="https://outlook.office.com")
    assert claims["upn"] == EMAIL
    assert claims["iss"] == discovery["issuer"]


@pytest.mark.parametrize("registered", [True, False])
def test_an_assertion_must_be_signed_by_a_registered_certificate(
    server: EmulatorServer, http: Http, registered: bool
) -> None:
    """The signature of private_key_jwt is verified."""
    mine, other = (trustme.CA(key_type=trustme.KeyType.RSA) for _ in range(2))
    accepted = mine if registered else other
    registration = Registration(secrets=(), certificates=(accepted.cert_pem.bytes(),))
    server.emulator.registrations.register(registration)
    credential = {
        "private_key": mine.private_key_pem.bytes().decode(),
        "public_certificate": mine.cert_pem.bytes().decode(),
    }
    app = confidential(server, http, credential)
    result = app.acquire_token_by_refresh_token(server.emulator.enrol(EMAIL).refresh_token, SCOPES)
    assert result.get("error_codes") == (None if registered else [700027])
    assert ("access_token" in result) is registered


def test_a_public_client_signs_in_by_device_code(server: EmulatorServer, http: Http) -> None:
    """Polls fail until the user has approved. The refresh token then needs no secret."""
    app = msal.PublicClientApplication(
        DEFAULT_CLIENT_ID, authority=server.authority, instance_discovery=False, http_client=http
    )
    flow = app.initiate_device_flow(SCOPES)
    once = {"exit_condition": lambda _: True}
    assert app.acquire_token_by_device_flow(flow, **once)["error"] == "authorization_pending"
    page = http.post(flow["verification_uri"], {"code": flow["user_code"].lower(), "email": EMAIL})
    assert "Signed in" in page.text
    result = app.acquire_token_by_device_flow(flow, **once)
    assert result["refresh_token"] == server.emulator.newest_refresh_token(EMAIL)
    assert "access_token" in app.acquire_token_by_refresh_token(result["refresh_token"], SCOPES)
    assert app.acquire_token_by_device_flow(flow, **once)["error"] == "expired_token"


def test_a_user_signs_in_by_authorization_code_once(server: EmulatorServer, http: Http) -> None:
    """State, nonce and PKCE are checked, and a code can be redeemed once."""
    app = confidential(server, http)
    flow = app.initiate_auth_code_flow(SCOPES, redirect_uri="http://localhost/back?x=1", login_hint=EMAIL)
    there = http.get(flow["auth_uri"])
    back = {key: values[0] for key, values in parse_qs(urlsplit(there.headers["location"]).query).items()}
    assert there.status_code == 302
    assert back.pop("x") == "1"
    result = app.acquire_token_by_auth_code_flow(dict(flow), back)
    assert result["id_token_claims"]["preferred_username"] == EMAIL
    assert app.acquire_token_by_auth_code_flow(dict(flow), back)["error_codes"] == [54005]


def test_a_stolen_authorization_code_is_useless_without_its_verifier(server: EmulatorServer, http: Http) -> None:
    """PKCE is checked."""
    app = confidential(server, http)
    flow = app.initiate_auth_code_flow(SCOPES, redirect_uri="http://localhost/", login_hint=EMAIL)
    location = http.get(flow["auth_uri"]).headers["location"]
    stolen = {
        "grant_type": "authorization_code",
        "code": parse_qs(urlsplit(location).query)["code"][0],
        "redirect_uri": "http://localhost/",
        "client_id": DEFAULT_CLIENT_ID,
        "client_secret": DEFAULT_CLIENT_SECRET,
        "code_verifier": "guess",
    }
    answer = http.post(f"{server.authority}/oauth2/v2.0/token", stolen)
    assert json.loads(answer.text)["error_codes"] == [501481]


def test_the_sign_in_page_escapes_what_it_repeats(server: EmulatorServer, http: Http) -> None:
    """Without a login hint the page requests an address, and repeats the query escaped."""
    query = {
        "client_id": DEFAULT_CLIENT_ID,
        "response_type": "code",
        "redirect_uri": "http://localhost/",
        "state": '"><script>',
    }
    page = http.get(f"{server.authority}/oauth2/v2.0/authorize?{urlencode(query)}")
    assert page.status_code == 200
    assert 'name="login_hint"' in page.text
    assert "<script>" not in page.text


def test_an_error_carries_retry_after_and_the_correlation_id(server: EmulatorServer, http: Http) -> None:
    """The headers are those of Microsoft."""
    server.emulator.add_fault(oauth_error("AADSTS90055", retry_after=7))
    url, headers = f"{server.authority}/oauth2/v2.0/token", {"client-request-id": "c0ffee"}
    answer = http.post(url, form(server.emulator.enrol(EMAIL).refresh_token), headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert answer.headers["client-request-id"] == "c0ffee"
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert json.loads(answer.text)["correlation_id"] == "c0ffee"


def test_a_request_after_a_reset_connection_gets_a_response(server: EmulatorServer, http: Http) -> None:
    """The network fails in the middle of a request."""
    server.emulator.add_fault(Reset(after=True), times=1)
    token = server.emulator.enrol(EMAIL).refresh_token
    url = f"{server.authority}/oauth2/v2.0/token"
    with pytest.raises(urllib3.exceptions.ProtocolError):
        http.post(url, form(token))
    assert server.emulator.newest_refresh_token(EMAIL) != token
    assert http.post(url, form(token)).status_code == 200


@pytest.mark.parametrize("after", [False, True])
def test_a_hang_outlasts_the_client_before_or_after_the_grant(server: EmulatorServer, http: Http, after: bool) -> None:
    """A timeout is ambiguous, so the request counts as soon as it arrives."""
    server.emulator.add_fault(Hang(30, after=after), EMAIL)
    token = server.emulator.enrol(EMAIL).refresh_token
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        http.post(f"{server.authority}/oauth2/v2.0/token", form(token), timeout=urllib3.Timeout(connect=30, read=1))
    wait_for(lambda: server.emulator.statistics().requests == 1, about="the request to be counted")
    if after:
        wait_for(lambda: server.emulator.newest_refresh_token(EMAIL) != token, about="the grant")
    assert (server.emulator.newest_refresh_token(EMAIL) != token) is after


def test_a_hanging_request_does_not_delay_the_stop(server: EmulatorServer, http: Http) -> None:
    """The connection is closed, as in a real outage."""
    server.emulator.add_fault(Hang(60))
    failed = threading.Event()

    def ask() -> None:
        with pytest.raises(urllib3.exceptions.ProtocolError):
            http.post(f"{server.authority}/oauth2/v2.0/token", {"grant_type": "refresh_token"})
        failed.set()

    threading.Thread(target=ask, daemon=True).start()
    wait_for(lambda: server.emulator.statistics().requests, about="the request")
    server.stop()  # raises if it takes ten seconds
    assert failed.wait(HANG_LIMIT)


def test_a_restarted_server_has_the_same_port_and_accounts(server: EmulatorServer, http: Http) -> None:
    """An outage, seen by a client that keeps its authority and its certificate bundle."""
    token, url = server.emulator.enrol(EMAIL).refresh_token, f"{server.authority}/oauth2/v2.0/token"
    assert http.post(url, form(token)).status_code == 200
    server.stop()
    with pytest.raises(urllib3.exceptions.HTTPError):
        http.post(url, form(token))
    server.start()
    assert http.post(url, form(token)).status_code == 200


def test_the_server_answers_and_stops_while_time_is_frozen(server: EmulatorServer, http: Http) -> None:
    """No ignore list is needed, because the clock of the server's loop cannot be frozen."""
    server.emulator.clock = lambda: datetime(2027, 5, 1, tzinfo=UTC)
    app = confidential(server, http)
    with freeze_time("2026-01-01") as frozen:
        token = server.emulator.enrol(EMAIL).refresh_token
        server.emulator.add_fault(Hang(0.1))
        for _ in range(3):
            frozen.tick(timedelta(days=200))
            result = app.acquire_token_by_refresh_token(token, SCOPES)
            assert result["id_token_claims"]["iat"] == datetime(2027, 5, 1, tzinfo=UTC).timestamp()
        server.stop()


def test_a_host_beyond_loopback_is_refused(tmp_path: Path) -> None:
    """Every client that reaches the emulator can sign in as any user."""
    with pytest.raises(ValueError, match="loopback"):
        EmulatorServer(tmp_path, host="0.0.0.0")


def test_the_admin_api_enrols_faults_and_counts(server: EmulatorServer, http: Http) -> None:
    """It has all functions that a test in another process needs."""
    account = {"email": EMAIL, "access_token_lifetime": 30, "rotate": False}
    grant = http.admin("POST", "accounts", account)
    assert grant["expires_in"] == 30
    http.admin("POST", "faults", {"fault": "AADSTS50196", "email": EMAIL, "retry_after": 3})
    refused = http.post(f"{server.authority}/oauth2/v2.0/token", form(grant["refresh_token"]))
    assert (refused.status_code, refused.headers["retry-after"]) == (400, "3")
    http.admin("DELETE", "faults")
    assert http.post(f"{server.authority}/oauth2/v2.0/token", form(grant["refresh_token"])).status_code == 200
    counted = http.admin("GET", "statistics")
    assert (counted["requests"], counted["by_account"][EMAIL]["successes"]) == (2, 1)


def test_the_admin_api_shows_a_digest_and_revokes(server: EmulatorServer, http: Http) -> None:
    """The response about an account contains no token."""
    token = server.emulator.enrol(EMAIL).refresh_token
    shown = http.admin("GET", f"accounts/{EMAIL}")
    assert token not in json.dumps(shown)
    assert shown["refresh_token_accepted"] is True
    http.admin("POST", "revoke", {"email": EMAIL})
    assert http.admin("GET", f"accounts/{EMAIL}")["refresh_token_accepted"] is False


def test_the_admin_api_approves_a_device_code(server: EmulatorServer, http: Http) -> None:
    """A script can replace the user."""
    answer = http.post(
        f"{server.authority}/oauth2/v2.0/devicecode",
        {"client_id": DEFAULT_CLIENT_ID, "scope": "offline_access"},
    )
    device = json.loads(answer.text)
    http.admin("POST", "device/approve", {"user_code": device["user_code"], "email": EMAIL})
    wanted = {
        "grant_type": "device_code",
        "client_id": DEFAULT_CLIENT_ID,
        "device_code": device["device_code"],
    }
    assert "access_token" in json.loads(http.post(f"{server.authority}/oauth2/v2.0/token", wanted).text)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("accounts", {}, 400),
        ("faults", {"fault": "nonsense"}, 400),
        ("faults", {"fault": "reset", "times": 0}, 400),
        ("revoke", {"email": "nobody@example.com"}, 404),
        ("device/approve", {"user_code": "X", "email": EMAIL}, 404),
    ],
)
def test_the_admin_api_explains_a_bad_request(http: Http, path: str, body: dict[str, object], status: int) -> None:
    """A wrong command is rejected with a reason, and no part of it is executed."""
    answer = http.admin("POST", path, body)
    assert answer["_status"] == status
    assert answer["detail"]
