"""A grant belongs to a confidential client, a public client or a single page app, which only refusals show."""

import pytest

from tests.factories import NOW
from tests.integration.identity.identities import open_identity
from tests.integration.identity.scripted_server import ScriptedServer
from worker.devkit.emulator import DEFAULT_CLIENT_SECRET, EmulatorServer, oauth_error
from worker.domain.client_type import ClientType
from worker.domain.outcome import Misconfigured, Outcome, ReauthRequired, Refreshed, Scope
from worker.domain.token import Secret
from worker.identity import Identity, RefreshAttempt, TokenRequest

ANN = "ann@contoso.com"
CONFIDENTIAL, PUBLIC, SPA = ClientType.CONFIDENTIAL, ClientType.PUBLIC, ClientType.SPA


def attempt(identity: Identity, client_type: ClientType, token: str = "a-refresh-token") -> RefreshAttempt[None]:
    request = TokenRequest(
        refresh_token=Secret(token), client="default", authority=None, scopes=(), client_type=client_type
    )
    [[ended]] = identity.refresh_all(iter([(None, request)]), now=lambda: NOW)
    assert ended.error is None
    return ended


def refuse(server: EmulatorServer, *codes: str, client_type: ClientType = CONFIDENTIAL) -> str:
    """Refuse the next requests with these codes. Returns the refresh token of a grant of this type."""
    for code in codes:
        server.emulator.add_fault(oauth_error(code), ANN, times=1)
    return server.emulator.enrol(ANN, client_type=client_type).refresh_token


@pytest.mark.parametrize(
    ("client_type", "has_secret", "origin"),
    [(CONFIDENTIAL, True, None), (PUBLIC, False, None), (SPA, False, "http://localhost")],
)
def test_each_type_has_its_request(
    scripted: ScriptedServer, identity: Identity, client_type: ClientType, *, has_secret: bool, origin: str | None
) -> None:
    """A known type costs one request."""
    assert isinstance(attempt(identity, client_type).outcome, Refreshed)

    [request] = scripted.posts()
    assert request.form.get("client_secret") == (DEFAULT_CLIENT_SECRET if has_secret else None)
    assert request.headers.get("Origin") == origin


@pytest.mark.parametrize(
    ("first", "codes", "last"),
    [
        (CONFIDENTIAL, ["700025"], PUBLIC),
        (CONFIDENTIAL, ["90023"], PUBLIC),
        (CONFIDENTIAL, ["9002327"], SPA),
        (CONFIDENTIAL, ["90023", "9002327"], SPA),
        (PUBLIC, ["7000218"], CONFIDENTIAL),
        (PUBLIC, ["9002327"], SPA),
        (SPA, ["9002326"], CONFIDENTIAL),
        (SPA, ["9002326", "700025"], PUBLIC),
    ],
)
def test_a_refusal_shows_the_type(
    server: EmulatorServer, first: ClientType, codes: list[str], last: ClientType
) -> None:
    """The attempt says which type has got the tokens."""
    token = refuse(server, *codes, client_type=last)

    with open_identity(server.authority, server.ca_bundle) as identity:
        ended = attempt(identity, first, token)

    assert (type(ended.outcome), ended.client_type) == (Refreshed, last)
    assert server.emulator.statistics().failures == len(codes)


@pytest.mark.parametrize(
    ("first", "codes", "outcome"),
    [
        (CONFIDENTIAL, ["90023", "7000218"], Misconfigured(code="AADSTS90023", scope=Scope.ACCOUNT)),
        (CONFIDENTIAL, ["9002327", "9002326"], ReauthRequired(code="AADSTS9002326", certain=False)),
        (CONFIDENTIAL, ["9002327", "50194"], ReauthRequired(code="AADSTS9002327")),
        (PUBLIC, ["7000218", "700025"], Misconfigured(code="AADSTS7000218", scope=Scope.ACCOUNT)),
        (PUBLIC, ["7000218", "7000215"], Misconfigured(code="AADSTS7000215", scope=Scope.CLIENT)),
        (PUBLIC, ["9002327", "50173"], ReauthRequired(code="AADSTS50173")),
    ],
)
def test_a_grant_of_no_type_concerns_its_account_alone(
    server: EmulatorServer, first: ClientType, codes: list[str], outcome: Outcome
) -> None:
    """No type is tried twice. A refused credential is the registration's fault all the same."""
    token = refuse(server, *codes)

    with open_identity(server.authority, server.ca_bundle) as identity:
        found = attempt(identity, first, token).outcome

    assert (found.kind, found.code, found.scope) == (outcome.kind, outcome.code, outcome.scope)
    assert server.emulator.statistics().requests == len(codes)


def test_the_grant_of_a_personal_account_by_device_code_needs_no_fault(server: EmulatorServer) -> None:
    """Microsoft refuses the secret (littlebearapps/outlook-assistant#143)."""
    token = server.emulator.enrol("ann@outlook.com", client_type=PUBLIC).refresh_token

    with open_identity(server.authority, server.ca_bundle) as identity:
        ended = attempt(identity, CONFIDENTIAL, token)

    assert (type(ended.outcome), ended.client_type) == (Refreshed, PUBLIC)


def test_a_registration_without_a_credential_tries_none(server: EmulatorServer) -> None:
    token = refuse(server, "7000218")

    with open_identity(server.authority, server.ca_bundle, credentials=()) as identity:
        assert attempt(identity, PUBLIC, token).outcome.code == "AADSTS7000218"
