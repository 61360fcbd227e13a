"""How an app registration proves itself: by secret or by certificate, and what a wrong proof means."""

import pytest
import trustme

from tests.integration.identity.asking import ask, opened
from tests.integration.identity.verbatim import Verbatim
from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Emulator, EmulatorServer, Registration
from worker.domain.outcome import Misconfigured, Refreshed, Scope
from worker.domain.secret import Secret
from worker.identity import Identity
from worker.identity.registration import ClientCredential


@pytest.fixture(name="emulator")
def _emulator() -> Emulator:
    """Under the real clock: MSAL dates its assertions by that."""
    return Emulator()


@pytest.fixture(name="certificate")
def _certificate() -> trustme.CA:
    """Self-signed, as those for app registrations are; RSA, the only kind the platform takes."""
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
def test_a_certificate_proves_the_registration(
    server: EmulatorServer, certificate: trustme.CA, key_first: bool
) -> None:
    """One PEM with both, in whichever order the tool that made it has put them."""
    _only_certificate(server, certificate)
    token = server.emulator.enrol("ann@contoso.com").refresh_token
    pem = _pem(certificate, key_first=key_first)

    with opened(server.authority, server.ca_bundle, credentials=pem) as identity:
        assert isinstance(ask(identity, token), Refreshed)


def test_another_certificate_is_our_mistake(server: EmulatorServer, certificate: trustme.CA) -> None:
    """It was renewed here and not there: every account of the registration waits, and none is to blame."""
    _only_certificate(server, trustme.CA(key_type=trustme.KeyType.RSA))
    token = server.emulator.enrol("ann@contoso.com").refresh_token

    with opened(server.authority, server.ca_bundle, credentials=_pem(certificate)) as identity:
        outcome = ask(identity, token)

    assert isinstance(outcome, Misconfigured)
    assert (outcome.code, outcome.scope) == ("AADSTS700027", Scope.CLIENT)


def test_the_private_key_stays_here(says: Verbatim, certificate: trustme.CA) -> None:
    """What travels is an assertion signed with it."""
    with opened(says.authority, says.ca_bundle, credentials=_pem(certificate)) as identity:
        assert isinstance(ask(identity), Refreshed)

    [asked] = says.posts()
    assert "client_secret" not in asked.form
    assert asked.form["client_assertion"].count(".") == 2
    assert "PRIVATE KEY" not in str(dict(asked.form))


def test_a_wrong_secret_is_our_mistake(server: EmulatorServer) -> None:
    """Likewise; the refresh token is untouched by it and good for the right secret."""
    token = server.emulator.enrol("ann@contoso.com").refresh_token

    with opened(server.authority, server.ca_bundle, credentials=_secret("expired")) as identity:
        outcome = ask(identity, token)
    with opened(server.authority, server.ca_bundle) as identity:
        assert isinstance(ask(identity, token), Refreshed)

    assert isinstance(outcome, Misconfigured)
    assert (outcome.code, outcome.scope) == ("AADSTS7000215", Scope.CLIENT)


def test_the_secret_travels_in_the_body_alone(says: Verbatim, identity: Identity) -> None:
    """Proxies and servers log addresses and headers."""
    ask(identity, "a-refresh-token-to-spend")

    [asked] = says.posts()
    assert asked.form["client_secret"] == DEFAULT_CLIENT_SECRET
    assert asked.form["refresh_token"] == "a-refresh-token-to-spend"
    for hidden in (DEFAULT_CLIENT_SECRET, "a-refresh-token-to-spend"):
        assert hidden not in asked.path + str(asked.headers)


@pytest.mark.parametrize(
    ("of_account", "asked_for"),
    [((), "https://outlook.office.com/IMAP.AccessAsUser.All"), (("https://example/Mail",), "https://example/Mail")],
)
def test_an_account_has_the_scopes_of_its_registration_or_its_own(
    says: Verbatim, identity: Identity, of_account: tuple[str, ...], asked_for: str
) -> None:
    """Scopes of two resources in one request are an error; an account's own replace the others."""
    ask(identity, scopes=of_account)

    [asked] = says.posts()
    assert set(asked.form["scope"].split()) == {asked_for, "offline_access", "openid", "profile"}


def test_a_registration_without_any_proof_asks_nothing(says: Verbatim) -> None:
    """It must not pass for a public client that then asks in vain for ever."""
    with opened(says.authority, says.ca_bundle, credentials=()) as identity:
        assert isinstance(ask(identity), Misconfigured)
    assert says.posts() == []
