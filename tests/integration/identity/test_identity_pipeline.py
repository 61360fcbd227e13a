"""Many requests at a time from one thread: each gets its own response, and none delays or fails another."""

from collections.abc import Iterable

import jwt
import pytest

from tests.factories import NOW
from tests.integration.identity.identities import open_identity, refresh_all, token_request
from tests.integration.identity.scripted_server import RawResponse, ScriptedServer, http_response
from worker.devkit.emulator import EmulatorServer
from worker.domain.outcome import Misconfigured, Refreshed, Scope
from worker.domain.token import Secret
from worker.identity import Identity, TokenRequest


def test_each_request_gets_its_own_response(server: EmulatorServer) -> None:
    """Also with fewer connections than requests."""
    emails = [f"user{number}@contoso.com" for number in range(60)]
    tokens = [server.emulator.enrol(email).refresh_token for email in emails]

    with open_identity(server.authority, server.ca_bundle, connections=7) as identity:
        outcomes = refresh_all(identity, map(token_request, tokens))

    for email, outcome in zip(emails, outcomes, strict=True):
        assert isinstance(outcome, Refreshed)
        assert jwt.decode(outcome.access_token.reveal(), options={"verify_signature": False})["upn"] == email
        assert outcome.refresh_token == Secret(server.emulator.newest_refresh_token(email))


def test_a_request_is_taken_when_its_turn_comes(server: EmulatorServer) -> None:
    """The caller can withhold the remaining requests once it has seen the first responses."""
    token = server.emulator.enrol("ann@contoso.com").refresh_token
    taken: list[int] = []

    def requests() -> Iterable[tuple[int, TokenRequest]]:
        for number in range(9):
            taken.append(number)
            yield number, token_request(token)

    with open_identity(server.authority, server.ca_bundle, connections=3) as identity:
        groups = identity.refresh_all(iter(requests()), now=lambda: NOW)
        first = next(iter(groups))
        assert len(taken) <= 3
        rest = [one for group in groups for one in group]

    assert sorted(one.key for one in [*first, *rest]) == list(range(9))


def test_responses_gather_while_further_requests_are_sent(server: EmulatorServer) -> None:
    """While all requests succeed, the number of connections does not limit the size of a group, which costs one
    commit."""
    token = server.emulator.enrol("ann@contoso.com").refresh_token
    largest = 0

    for _ in range(5):  # more than two responses must arrive within a moment, and the machine may be too busy for that
        with open_identity(server.authority, server.ca_bundle, connections=2) as identity:
            groups = [
                len(group)
                for group in identity.refresh_all(((n, token_request(token)) for n in range(40)), now=lambda: NOW)
            ]
        assert groups[0] <= 2
        assert sum(groups) == 40
        largest = max(largest, *groups)
        if largest > 2:
            break

    assert largest > 2


def test_a_request_that_cannot_be_built_stops_no_other(server: EmulatorServer) -> None:
    """MSAL rejects the scope of this row before anything is sent. No import would have accepted the scope."""
    token = server.emulator.enrol("ann@contoso.com").refresh_token

    with open_identity(server.authority, server.ca_bundle) as identity:
        before, poison, after = refresh_all(
            identity, [token_request(token), token_request(scopes="openid"), token_request(token)]
        )

    assert isinstance(poison, ValueError)
    assert isinstance(before, Refreshed)
    assert isinstance(after, Refreshed)


def test_metadata_are_fetched_once_per_batch(scripted: ScriptedServer, identity: Identity) -> None:
    """Otherwise a hundred accounts would wait for a hundred time-outs, one after the other."""
    scripted.discovery = RawResponse(http_response(404, b""))

    outcomes = refresh_all(identity, [token_request()] * 5, expected=[("default", None)])

    assert outcomes == [Misconfigured(code="discovery_http_404", scope=Scope.TENANT)] * 5
    assert len(scripted.requests) == 1


@pytest.mark.parametrize("known", [False, True], ids=["each in its turn", "side by side"])
def test_tenants_fail_independently_in_a_batch(scripted: ScriptedServer, identity: Identity, known: bool) -> None:
    """A tenant on another host is refused, and the others are refreshed."""
    evil = "https://evil.example/contoso.com"
    expected = [("default", None), ("default", evil)] if known else []

    good, refused = refresh_all(identity, [token_request(), token_request(authority=evil)], expected=expected)

    assert isinstance(good, Refreshed)
    assert refused == Misconfigured(code="authority_refused", scope=Scope.TENANT)
