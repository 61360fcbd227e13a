"""The OpenID metadata of an authority cannot have secrets and refresh tokens sent to another host."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.constants import ANN, BOB
from tests.integration.identity.identities import open_identity, refresh
from tests.integration.identity.scripted_server import RawResponse, ScriptedServer, http_response, scripted_servers
from worker.bootstrap import Services, bootstrap
from worker.domain.account import Grant
from worker.domain.errors import ConfigurationError
from worker.domain.outcome import Misconfigured, Refreshed, Scope, Transient
from worker.domain.token import Secret
from worker.identity import Identity
from worker.settings import Settings

REFUSED = Misconfigured(code="endpoint_refused", scope=Scope.TENANT)
ENDPOINTS = ["token_endpoint", "device_authorization_endpoint", "authorization_endpoint"]


@pytest.fixture(name="platform")
def _platform(tmp_path: Path) -> Iterator[ScriptedServer]:
    with scripted_servers(_directory(tmp_path, "platform"), "127.0.0.1") as begin:
        yield begin()


@pytest.fixture(name="thief")
def _thief(tmp_path: Path) -> Iterator[ScriptedServer]:
    """A server with a certificate that the workers trust."""
    with scripted_servers(_directory(tmp_path, "thief"), "127.0.0.1") as begin:
        yield begin()


@pytest.fixture(name="ca_bundle")
def _ca_bundle(platform: ScriptedServer, thief: ScriptedServer, tmp_path: Path) -> Path:
    both = tmp_path / "both.pem"
    both.write_bytes(platform.ca_bundle.read_bytes() + thief.ca_bundle.read_bytes())
    return both


@pytest.fixture(name="identity")
def _identity(platform: ScriptedServer, ca_bundle: Path) -> Iterator[Identity]:
    with open_identity(platform.authority, ca_bundle) as identity:
        yield identity


def _directory(parent: Path, name: str) -> Path:
    directory = parent / name
    directory.mkdir()
    return directory


@pytest.mark.parametrize("oidc", [False, True], ids=["authority", "oidc_authority"])
@pytest.mark.parametrize("url", ["https://127.0.0.1:{}/t", "https://localhost:{}/t", "https://x@127.0.0.1:{}/t"])
def test_the_secret_stays_on_the_host_of_the_authority(
    platform: ScriptedServer, thief: ScriptedServer, ca_bundle: Path, url: str, oidc: bool
) -> None:
    """Another port is another server."""
    platform.publish(token_endpoint=url.format(thief.port))

    with open_identity(platform.authority, ca_bundle, oidc=oidc) as identity:
        outcome = refresh(identity)

    assert thief.requests == []
    assert outcome == REFUSED


@pytest.mark.parametrize("name", ENDPOINTS)
def test_no_endpoint_is_on_another_host(
    platform: ScriptedServer, thief: ScriptedServer, identity: Identity, name: str
) -> None:
    """A sign-in on another device sends its code, and the user's browser its own."""
    platform.publish(**_endpoints(platform) | {name: f"https://127.0.0.1:{thief.port}/t"})

    with pytest.raises(ConfigurationError, match=r"\(endpoint_refused\)\. .* WORKER_ENDPOINT_HOSTS\.") as refusal:
        identity.start_device_flow("default")

    assert "127.0.0.1" not in str(refusal.value)
    assert refresh(identity) == REFUSED
    assert platform.posts() == thief.requests == []


def test_a_diagnosis_names_the_setting(platform: ScriptedServer, thief: ScriptedServer, identity: Identity) -> None:
    """token-worker doctor prints this sentence."""
    platform.publish(token_endpoint=f"https://127.0.0.1:{thief.port}/t")

    with pytest.raises(ConfigurationError, match=r"\(endpoint_refused\)\. .* WORKER_ENDPOINT_HOSTS\."):
        identity.check("default")


@pytest.mark.parametrize("hosts", [{"127.0.0.1"}, {"elsewhere.example", "127.0.0.1"}])
def test_an_operator_allows_another_host(
    platform: ScriptedServer, thief: ScriptedServer, ca_bundle: Path, hosts: set[str]
) -> None:
    """Some issuers have their endpoints elsewhere."""
    platform.publish(token_endpoint=f"https://127.0.0.1:{thief.port}/t")

    with open_identity(platform.authority, ca_bundle, endpoint_hosts=hosts) as identity:
        assert isinstance(refresh(identity), Refreshed)

    assert platform.posts() == []
    assert len(thief.posts()) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_metadata_do_not_come_from_another_host(
    platform: ScriptedServer, thief: ScriptedServer, identity: Identity, status: int
) -> None:
    platform.discovery = _redirect(status, thief)

    assert refresh(identity) == Transient(code="discovery_failed", scope=Scope.SERVICE)
    assert thief.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_token_request_is_not_sent_again_to_another_host(
    platform: ScriptedServer, thief: ScriptedServer, identity: Identity, status: int
) -> None:
    platform.token = _redirect(status, thief)

    assert refresh(identity) == Transient(code=f"http_{status}", scope=Scope.SERVICE)
    assert len(platform.posts()) == 1
    assert thief.requests == []


def test_the_tenant_of_a_thief_stops_no_other(
    settings: Settings, platform: ScriptedServer, thief: ScriptedServer, ca_bundle: Path
) -> None:
    """The administrator of one tenant controls its metadata. Three of its accounts would open a breaker."""
    with _process(settings, authority=platform.authority, ca_bundle=ca_bundle) as services:
        services.accounts.save([_grant(BOB)])
        assert services.refresher.refresh_due() == {"leased": 1, "refreshed": 1}
        platform.publish(token_endpoint=f"https://127.0.0.1:{thief.port}/t")
        stolen = [f"user{number}@evil.example" for number in range(4)]
        services.accounts.save(
            [_grant(email, authority=f"{platform.base_url}/evil.example") for email in stolen] + [_grant(ANN)]
        )

        assert services.refresher.refresh_due() == {"leased": 5, "refreshed": 1, "misconfigured": 4}

        failures = {(each := services.accounts.find(email).failure) and each.code for email in stolen}
        assert failures == {"endpoint_refused"}
        assert not [breaker for breaker in services.events.breakers() if breaker.open_until]
    assert thief.requests == []


def test_the_setting_reaches_the_worker(
    settings: Settings, platform: ScriptedServer, thief: ScriptedServer, ca_bundle: Path
) -> None:
    platform.publish(token_endpoint=f"https://127.0.0.1:{thief.port}/t")
    changes = {"authority": platform.authority, "ca_bundle": ca_bundle, "endpoint_hosts": "127.0.0.1"}
    with _process(settings, **changes) as services:
        services.accounts.save([_grant(ANN)])
        assert services.refresher.refresh_due() == {"leased": 1, "refreshed": 1}


def _endpoints(platform: ScriptedServer) -> dict[str, str]:
    return {name: f"{platform.authority}/{name}" for name in ENDPOINTS}


def _redirect(status: int, server: ScriptedServer) -> RawResponse:
    return RawResponse(http_response(status, b"", {"Location": f"https://127.0.0.1:{server.port}/t"}))


def _grant(email: str, **terms: Any) -> Grant:
    return Grant(email=email, refresh_token=Secret("marker-refresh-token"), **terms)


@contextmanager
def _process(settings: Settings, **changes: Any) -> Iterator[Services]:
    services = bootstrap(Settings.model_validate(settings.model_dump() | changes))
    try:
        yield services
    finally:
        services.close()
