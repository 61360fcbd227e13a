"""How an app registration authenticates, by secret or by certificate, and what a rejected credential means."""

from datetime import timedelta
from pathlib import Path
from unittest.mock import ANY

import jwt
import pytest
import trustme

from tests.factories import NOW
from tests.integration.identity.identities import open_identity, refresh, refresh_all, token_request
from tests.integration.identity.scripted_server import ScriptedServer
from worker import clock
from worker.devkit.emulator import (
    DEFAULT_CLIENT_ID,
    DEFAULT_CLIENT_SECRET,
    Emulator,
    EmulatorServer,
    FederatedCredential,
    Hang,
    Registration,
    oauth_error,
)
from worker.domain.errors import ConfigurationError
from worker.domain.outcome import Misconfigured, Refreshed, Scope
from worker.domain.token import Secret
from worker.identity import Identity
from worker.identity.registration import ClientCredential


@pytest.fixture(name="emulator")
def _emulator() -> Emulator:
    """On the real clock, because MSAL dates its assertions by it."""
    return Emulator()


@pytest.fixture(name="certificate")
def _certificate() -> trustme.CA:
    """Self-signed, as certificates of app registrations are, and RSA, the only kind that the platform accepts."""
    return trustme.CA(key_type=trustme.KeyType.RSA)


def _pem(certificate: trustme.CA, *, key_first: bool = True) -> tuple[ClientCredential]:
    parts = [certificate.private_key_pem.bytes(), certificate.cert_pem.bytes()]
    return (ClientCredential(certificate=Secret(b"".join(parts if key_first else reversed(parts)).decode())),)


def _secret(value: str) -> tuple[ClientCredential]:
    return (ClientCredential(secret=Secret(value)),)


def _only_certificate(server: EmulatorServer, certificate: trustme.CA) -> None:
    registration = Registration(
        DEFAULT_CLIENT_ID, secrets=(), certificates=(certificate.cert_pem.bytes(),), public=False
    )
    server.emulator.registrations.register(registration)


@pytest.mark.parametrize("key_first", [True, False], ids=["key first", "certificate first"])
def test_a_certificate_authenticates_the_registration(
    server: EmulatorServer, certificate: trustme.CA, key_first: bool
) -> None:
    """One PEM holds the key and the certificate, in the order of the tool that made it."""
    _only_certificate(server, certificate)
    token = server.emulator.enrol("ann@contoso.com").refresh_token
    pem = _pem(certificate, key_first=key_first)

    with open_identity(server.authority, server.ca_bundle, credentials=pem) as identity:
        assert isinstance(refresh(identity, token), Refreshed)


def test_a_certificate_that_is_not_registered_is_a_misconfiguration(
    server: EmulatorServer, certificate: trustme.CA
) -> None:
    """It was renewed here but not at Microsoft. Every account of the registration waits, and none is to blame."""
    _only_certificate(server, trustme.CA(key_type=trustme.KeyType.RSA))
    token = server.emulator.enrol("ann@contoso.com").refresh_token

    with open_identity(server.authority, server.ca_bundle, credentials=_pem(certificate)) as identity:
        outcome = refresh(identity, token)

    assert isinstance(outcome, Misconfigured)
    assert (outcome.code, outcome.scope) == ("AADSTS700027", Scope.CLIENT)


def _federated(server: EmulatorServer, cluster: trustme.CA) -> None:
    federated = FederatedCredential(
        "https://cluster.example", "system:serviceaccount:ns:worker", cluster.cert_pem.bytes()
    )
    registration = Registration(DEFAULT_CLIENT_ID, secrets=(), federated=(federated,), public=False)
    server.emulator.registrations.register(registration)


def _assertion(cluster: trustme.CA, **claims: object) -> str:
    standard = {
        "iss": "https://cluster.example",
        "sub": "system:serviceaccount:ns:worker",
        "aud": "api://AzureADTokenExchange",
        "exp": clock.utcnow().timestamp() + 3600,
    }
    return jwt.encode(standard | claims, cluster.private_key_pem.bytes(), "RS256")


def test_a_token_of_another_issuer_authenticates_the_registration(
    server: EmulatorServer, certificate: trustme.CA, tmp_path: Path
) -> None:
    """Workload identity federation: Kubernetes renews a token in a file, and no secret has to be rotated."""
    _federated(server, certificate)
    token = server.emulator.enrol("ann@contoso.com").refresh_token
    file = tmp_path / "token"
    file.write_text(_assertion(certificate) + "\n")

    with open_identity(
        server.authority, server.ca_bundle, credentials=(ClientCredential(assertion_file=file),)
    ) as identity:
        assert isinstance(refresh(identity, token), Refreshed)


def test_a_renewed_assertion_is_read_without_a_restart(
    server: EmulatorServer, certificate: trustme.CA, tmp_path: Path
) -> None:
    """The first one has ended, and the file has the next."""
    _federated(server, certificate)
    token = server.emulator.enrol("ann@contoso.com").refresh_token
    file = tmp_path / "token"
    file.write_text(_assertion(certificate, exp=clock.utcnow().timestamp() - 5))

    with open_identity(
        server.authority, server.ca_bundle, credentials=(ClientCredential(assertion_file=file),)
    ) as identity:
        ended = refresh(identity, token)
        file.write_text(_assertion(certificate))
        renewed = refresh(identity, token)

    assert isinstance(ended, Misconfigured)
    assert (ended.code, ended.scope) == ("AADSTS700024", Scope.CLIENT)
    assert isinstance(renewed, Refreshed)


@pytest.mark.parametrize("content", [None, b"", b"no token", b"\xff\xfe.\x00.", b"." * 100_000])
def test_a_file_without_an_assertion_is_a_misconfiguration(
    scripted: ScriptedServer, tmp_path: Path, content: bytes | None
) -> None:
    """It was deleted, or is being written. No request is sent, and no account is to blame."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)

    with open_identity(
        scripted.authority, scripted.ca_bundle, credentials=(ClientCredential(assertion_file=file),)
    ) as identity:
        assert refresh(identity) == Misconfigured(code="assertion_unreadable")
    assert scripted.posts() == []


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"sub": "system:serviceaccount:ns:other"}, "AADSTS700213"),
        ({"iss": "https://other.example"}, "AADSTS70021"),
        ({"aud": "api://other"}, "AADSTS70021"),
    ],
)
def test_an_assertion_of_another_workload_is_refused(
    server: EmulatorServer, certificate: trustme.CA, tmp_path: Path, claims: dict[str, object], code: str
) -> None:
    """The federated credential at Microsoft names another issuer, subject or audience."""
    _federated(server, certificate)
    token = server.emulator.enrol("ann@contoso.com").refresh_token
    file = tmp_path / "token"
    file.write_text(_assertion(certificate, **claims))

    with open_identity(
        server.authority, server.ca_bundle, credentials=(ClientCredential(assertion_file=file),)
    ) as identity:
        outcome = refresh(identity, token)

    assert isinstance(outcome, Misconfigured)
    assert (outcome.code, outcome.scope) == (code, Scope.CLIENT)


def test_the_private_key_is_not_sent(scripted: ScriptedServer, certificate: trustme.CA) -> None:
    """The request carries an assertion that is signed with it."""
    with open_identity(scripted.authority, scripted.ca_bundle, credentials=_pem(certificate)) as identity:
        assert isinstance(refresh(identity), Refreshed)

    [request] = scripted.posts()
    assert "client_secret" not in request.form
    assert request.form["client_assertion"].count(".") == 2
    assert "PRIVATE KEY" not in str(dict(request.form))


def test_a_wrong_secret_is_a_misconfiguration(server: EmulatorServer) -> None:
    """The request does not use the refresh token up, which works with the right secret."""
    token = server.emulator.enrol("ann@contoso.com").refresh_token

    with open_identity(server.authority, server.ca_bundle, credentials=_secret("expired")) as identity:
        outcome = refresh(identity, token)
    with open_identity(server.authority, server.ca_bundle) as identity:
        assert isinstance(refresh(identity, token), Refreshed)

    assert isinstance(outcome, Misconfigured)
    assert (outcome.code, outcome.scope) == ("AADSTS7000215", Scope.CLIENT)


def test_the_secret_is_sent_in_the_body_only(scripted: ScriptedServer, identity: Identity) -> None:
    """Proxies and servers log addresses and headers."""
    refresh(identity, "a-refresh-token-to-spend")

    [request] = scripted.posts()
    assert request.form["client_secret"] == DEFAULT_CLIENT_SECRET
    assert request.form["refresh_token"] == "a-refresh-token-to-spend"
    for hidden in (DEFAULT_CLIENT_SECRET, "a-refresh-token-to-spend"):
        assert hidden not in request.path + str(request.headers)


@pytest.mark.parametrize(
    ("of_account", "requested"),
    [((), "https://outlook.office.com/IMAP.AccessAsUser.All"), (("https://example/Mail",), "https://example/Mail")],
)
def test_an_account_has_the_scopes_of_its_registration_or_its_own(
    scripted: ScriptedServer, identity: Identity, of_account: tuple[str, ...], requested: str
) -> None:
    """Scopes of two resources in one request are an error, so an account's own scopes replace the others."""
    refresh(identity, scopes=of_account)

    [request] = scripted.posts()
    assert set(request.form["scope"].split()) == {requested, "offline_access", "openid", "profile"}


def test_a_registration_without_a_credential_sends_nothing(scripted: ScriptedServer) -> None:
    """It must not be taken for a public client, whose requests would all fail."""
    with open_identity(scripted.authority, scripted.ca_bundle, credentials=()) as identity:
        assert isinstance(refresh(identity), Misconfigured)
    assert scripted.posts() == []


def test_refused_credentials_are_tried_in_turn(server: EmulatorServer) -> None:
    """The next refresh begins with the one that works."""
    grant = server.emulator.enrol("ann@contoso.com")
    credentials = (*_secret("expired"), *_secret("revoked"), *_secret(DEFAULT_CLIENT_SECRET))

    def requests() -> int:
        before = server.emulator.statistics().requests
        assert isinstance(refresh(identity, grant.refresh_token), Refreshed)
        return server.emulator.statistics().requests - before

    with open_identity(server.authority, server.ca_bundle, credentials=credentials) as identity:
        assert [requests(), requests()] == [3, 1]


def test_if_all_credentials_are_refused_each_is_tried_once(server: EmulatorServer) -> None:
    """The outcome is the last refusal."""
    token = server.emulator.enrol("ann@contoso.com").refresh_token

    with open_identity(
        server.authority, server.ca_bundle, credentials=(*_secret("expired"), *_secret("revoked"))
    ) as identity:
        assert refresh(identity, token) == Misconfigured(code="AADSTS7000215", correlation_id=ANY)

    assert server.emulator.statistics().requests == 2


def test_a_next_credential_that_is_unusable_stops_no_other_account(server: EmulatorServer) -> None:
    """Building the second request fails, for each account by itself."""
    grant = server.emulator.enrol("ann@contoso.com")
    server.emulator.add_fault(oauth_error("7000215"), grant.email, times=1)
    bob = server.emulator.enrol("bob@contoso.com")

    with open_identity(
        server.authority, server.ca_bundle, credentials=(*_secret(DEFAULT_CLIENT_SECRET), ClientCredential())
    ) as identity:
        failed, refreshed = refresh_all(
            identity, [token_request(grant.refresh_token), token_request(bob.refresh_token)]
        )

    assert isinstance(failed, ConfigurationError)
    assert isinstance(refreshed, Refreshed)


def test_the_seconds_of_all_requests_of_an_account_add_up(server: EmulatorServer) -> None:
    """An event shows how long the account has waited for Microsoft."""
    grant = server.emulator.enrol("ann@contoso.com")
    server.emulator.add_fault(Hang(0.3), grant.email)

    with open_identity(
        server.authority, server.ca_bundle, credentials=(*_secret("expired"), *_secret(DEFAULT_CLIENT_SECRET))
    ) as identity:
        [[response]] = identity.refresh_all(iter([("ann", token_request(grant.refresh_token))]), now=lambda: NOW)

    assert (response.key, type(response.outcome)) == ("ann", Refreshed)
    assert timedelta(seconds=0.6) <= response.latency < timedelta(seconds=5)
