"""Metadata are fetched before a token is used. A failed discovery uses no token and results in an outcome."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.factories import make_registration
from tests.integration.identity.identities import open_identity, refresh
from tests.integration.identity.scripted_server import RawResponse, ScriptedServer, http_response, scripted_servers
from worker.devkit.emulator import EmulatorServer
from worker.domain.errors import ConfigurationError
from worker.domain.outcome import Misconfigured, Refreshed, Scope, Transient
from worker.identity import Identity

_THREADS = 8


@pytest.mark.parametrize("status", [400, 403, 404])
def test_refused_metadata_mean_a_wrong_tenant(scripted: ScriptedServer, identity: Identity, status: int) -> None:
    """An operator must act. No account is to blame, and other tenants are not affected."""
    scripted.discovery = RawResponse(http_response(status, b'{"error": "invalid_tenant"}'))

    assert refresh(identity) == Misconfigured(code=f"discovery_http_{status}", scope=Scope.TENANT)
    assert scripted.posts() == []


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(http_response(429, b""), id="429"),
        pytest.param(http_response(500, b""), id="500"),
        pytest.param(http_response(503, b"<html></html>"), id="503 in HTML"),
        pytest.param(http_response(302, b"", {"Location": "https://localhost:9/elsewhere"}), id="a redirect"),
        pytest.param(http_response(204, b""), id="204"),
        pytest.param(http_response(200, b""), id="nothing"),
        pytest.param(http_response(200, b"<html></html>"), id="HTML"),
        pytest.param(http_response(200, b"{}"), id="no endpoints"),
        pytest.param(http_response(200, b"[]"), id="an array"),
        pytest.param(http_response(200, b"null"), id="null"),
        pytest.param(http_response(200, b"\xff\xfe"), id="not UTF-8"),
        pytest.param(http_response(200, b"[" * 100_000), id="deeper than any parser goes"),
    ],
)
def test_unusable_metadata_are_transient(scripted: ScriptedServer, identity: Identity, reply: bytes) -> None:
    """A response of a portal or a proxy in between says nothing about the authority."""
    scripted.discovery = RawResponse(reply)

    outcome = refresh(identity)

    assert outcome == Transient(code="discovery_failed", scope=Scope.SERVICE)
    assert scripted.posts() == []


def test_metadata_without_a_token_endpoint_are_transient(scripted: ScriptedServer, identity: Identity) -> None:
    scripted.publish(token_endpoint=None)

    assert refresh(identity) == Transient(code="discovery_failed", scope=Scope.SERVICE)
    assert scripted.posts() == []


@pytest.mark.parametrize("endpoint", [7, "", "http://localhost/token", "/token", "https://"])
def test_metadata_with_an_unusable_token_endpoint_are_a_misconfiguration(
    scripted: ScriptedServer, identity: Identity, endpoint: object
) -> None:
    """Nothing is sent to it, because plain HTTP would disclose the client secret."""
    scripted.publish(token_endpoint=endpoint)

    assert refresh(identity) == Misconfigured(code="endpoint_refused", scope=Scope.TENANT)
    assert scripted.posts() == []


@pytest.mark.parametrize(
    "reply",
    [http_response(404, b""), http_response(500, b""), http_response(200, b"{}"), b""],
    ids=["404", "500", "no endpoints", "cut"],
)
def test_an_authority_that_recovers_is_used_again(scripted: ScriptedServer, identity: Identity, reply: bytes) -> None:
    """A failed discovery is not remembered: the next account that is due tries again."""
    good = scripted.discovery
    scripted.discovery = RawResponse(reply, close=not reply)
    assert not isinstance(refresh(identity), Refreshed)

    scripted.discovery = good

    assert isinstance(refresh(identity), Refreshed)


def test_metadata_are_fetched_once(scripted: ScriptedServer, identity: Identity) -> None:
    """Otherwise each refresh would cost two requests and depend on the metadata endpoint."""
    for _ in range(3):
        refresh(identity)

    assert [request.method for request in scripted.requests] == ["GET", "POST", "POST", "POST"]


def test_an_account_chooses_its_tenant(server: EmulatorServer) -> None:
    """Guests and single-tenant registrations are refreshed in their own tenant."""
    tenant = f"{server.base_url}/contoso.com"
    grant = server.emulator.enrol("ann@contoso.com")

    with open_identity(server.authority, server.ca_bundle) as identity:
        outcome = refresh(identity, grant.refresh_token, authority=tenant)

    assert isinstance(outcome, Refreshed)
    assert server.emulator.statistics().refreshes == 1


def test_the_token_request_goes_to_the_tenant(scripted: ScriptedServer, identity: Identity) -> None:
    """A token of the wrong tenant opens no mailbox."""
    scripted.publish(token_endpoint=f"{scripted.base_url}/contoso.com/oauth2/v2.0/token")

    refresh(identity, authority=f"{scripted.base_url}/contoso.com")

    assert [request.path.split("/")[1] for request in scripted.requests] == ["contoso.com", "contoso.com"]


def test_an_account_does_not_choose_its_host(scripted: ScriptedServer, identity: Identity, tmp_path: Path) -> None:
    """The client secret is sent to the host, so a row of the database must not be able to choose it."""
    with scripted_servers(tmp_path) as begin:
        thief = begin()
        for authority in (thief.authority, f"https://localhost:{scripted.port}@localhost:{thief.port}/common"):
            refused = refresh(identity, authority=authority)
            assert refused == Misconfigured(code="authority_refused", scope=Scope.TENANT)

        assert thief.requests == []
    assert scripted.requests == []


@pytest.mark.parametrize("tenant", ["", "/"])
def test_an_authority_without_a_tenant_is_refused(scripted: ScriptedServer, identity: Identity, tenant: str) -> None:
    """MSAL would raise. A row must not be able to make a refresh raise."""
    assert refresh(identity, authority=scripted.base_url + tenant) == Misconfigured(
        code="authority_refused", scope=Scope.TENANT
    )


def test_an_unknown_registration_is_a_misconfiguration(scripted: ScriptedServer, identity: Identity) -> None:
    """It was renamed or removed while accounts still name it. Microsoft has refused nothing."""
    assert refresh(identity, client="gone") == Misconfigured(code="unknown_client", scope=Scope.TENANT)
    assert scripted.requests == []


def test_tenants_fail_independently(scripted: ScriptedServer, identity: Identity) -> None:
    """One tenant's metadata being unavailable must not stop the refreshes of the others."""
    assert isinstance(refresh(identity), Refreshed)
    scripted.discovery = RawResponse(http_response(500, b""))

    assert refresh(identity, authority=f"{scripted.base_url}/contoso.com") == Transient(
        code="discovery_failed", scope=Scope.SERVICE
    )
    assert isinstance(refresh(identity), Refreshed)


@pytest.mark.parametrize(
    "reply",
    [http_response(404, b""), http_response(503, b""), http_response(302, b""), http_response(200, b"[]")],
    ids=["404", "503", "a redirect", "an array"],
)
def test_a_diagnosis_names_the_authority_that_does_not_respond(
    scripted: ScriptedServer, identity: Identity, reply: bytes
) -> None:
    """The operator reads one sentence, never a traceback."""
    identity.check("default")
    scripted.discovery = RawResponse(reply)

    with (
        open_identity(scripted.authority, scripted.ca_bundle) as other,
        pytest.raises(ConfigurationError, match=scripted.authority),
    ):
        other.check("default")


def test_the_metadata_of_a_plain_openid_issuer_have_no_v2(scripted: ScriptedServer) -> None:
    """Only Microsoft's own metadata are below /v2.0."""
    with open_identity(scripted.authority, scripted.ca_bundle, oidc=True) as identity:
        assert isinstance(refresh(identity), Refreshed)

    assert scripted.requests[0].path == "/common/.well-known/openid-configuration"


def test_an_issuer_of_another_host_is_refused(scripted: ScriptedServer) -> None:
    """Metadata copied from another host would send the client secret there."""
    scripted.publish(issuer="https://login.example")

    with open_identity(scripted.authority, scripted.ca_bundle, oidc=True) as identity:
        assert not isinstance(refresh(identity), Refreshed)
    assert scripted.posts() == []


def test_registrations_are_independent(server: EmulatorServer) -> None:
    """Each account is refreshed by the registration that received its consent."""
    grant = server.emulator.enrol("ann@contoso.com")
    ours = make_registration(authority=server.authority)
    other = make_registration(name="other", authority=server.authority, client_id="unregistered")
    identity = Identity([ours, other], ca_bundle=server.ca_bundle, connections=2)

    outcomes = [refresh(identity, grant.refresh_token, client=name) for name in ("other", "default")]

    identity.close()
    assert [type(outcome) for outcome in outcomes] == [Misconfigured, Refreshed]


def test_threads_that_need_the_same_metadata_share_one_request(scripted: ScriptedServer, identity: Identity) -> None:
    """They also share its failure, because one retry after the other would add up their time limits."""
    scripted.discovery = RawResponse(http_response(500, b""))
    scripted.accepts.clear()

    with ThreadPoolExecutor(_THREADS) as executor:
        outcomes = [executor.submit(refresh, identity) for _ in range(_THREADS)]
        time.sleep(1)
        scripted.accepts.set()
        assert {outcome.result() for outcome in outcomes} == {Transient(code="discovery_failed", scope=Scope.SERVICE)}

    assert len(scripted.requests) == 1
