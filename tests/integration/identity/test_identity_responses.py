"""A response means exactly what the golden vectors say, even where MSAL would disagree."""

import json

import pytest

from tests.factories import NOW
from tests.integration.identity.identities import refresh
from tests.integration.identity.scripted_server import RawResponse, ScriptedServer, http_response, token_body
from tests.vectors.answers import Vector, describe, load
from worker.domain.client_type import ClientType, required_type
from worker.domain.outcome import Refreshed, Transient
from worker.domain.token import Secret
from worker.identity import Identity


@pytest.mark.parametrize("vector", load(), ids=lambda vector: vector.name)
def test_a_response_means_what_the_golden_vector_says(
    scripted: ScriptedServer, identity: Identity, vector: Vector
) -> None:
    """The transport neither loses nor changes anything."""
    scripted.token = RawResponse(http_response(vector.status, vector.content, vector.headers))

    outcome = refresh(identity)

    assert describe(outcome, obtained_at=NOW) == vector.expected
    # Some requests are sent once more, as another type of client, because the grant may belong to one.
    is_sent_again = required_type(outcome.code) in {ClientType.PUBLIC, ClientType.SPA}
    assert len(scripted.posts()) == (2 if is_sent_again else 1)


@pytest.mark.parametrize(
    "spoiled",
    [
        {"id_token": "garbage"},
        {"id_token": "e30.!!!.e30"},
        {"id_token": ["e30"]},
        {"client_info": "garbage"},
        {"client_info": 7},
        {"expires_in": None},
        {"scope": {"a": 1}},
        {"refresh_in": "soon"},
        {"token_type": None},
        {"error": {"code": "odd"}},
    ],
    ids=str,
)
def test_a_response_that_msal_rejects_keeps_its_rotated_refresh_token(
    scripted: ScriptedServer, identity: Identity, spoiled: dict[str, object]
) -> None:
    """MSAL would raise after the rotation, although the response holds the only copy of the tokens."""
    scripted.token = RawResponse(http_response(200, token_body(access_token="new", refresh_token="rotated", **spoiled)))

    outcome = refresh(identity)

    assert isinstance(outcome, Refreshed)
    assert (outcome.access_token, outcome.refresh_token) == (Secret("new"), Secret("rotated"))


@pytest.mark.parametrize(
    "odd",
    [{"error": {"code": "ServiceUnavailable"}}, {"error": None}, {"error": "line\nbreak"}, {"error": "\u2603"}],
    ids=str,
)
def test_an_odd_error_does_not_affect_the_next_request(
    scripted: ScriptedServer, identity: Identity, odd: object
) -> None:
    """MSAL would repeat the last error in a header of its next request, even for another account."""
    scripted.token = RawResponse(http_response(400, json.dumps(odd).encode()))
    assert isinstance(refresh(identity), Transient)

    scripted.token = RawResponse(http_response(200, token_body()))

    assert isinstance(refresh(identity), Refreshed)


def test_a_refusal_is_not_replayed(scripted: ScriptedServer, identity: Identity) -> None:
    """MSAL would replay a 400 for a minute and a 429 until its Retry-After. The schedule decides when to try again."""
    for status in (400, 429):
        scripted.token = RawResponse(http_response(status, b'{"error": "invalid_grant"}', {"Retry-After": "3600"}))
        refresh(identity)

    scripted.token = RawResponse(http_response(200, token_body()))

    assert isinstance(refresh(identity), Refreshed)
    assert len(scripted.posts()) == 3


def test_the_correlation_id_comes_from_the_header(scripted: ScriptedServer, identity: Identity) -> None:
    """Microsoft's support needs it, also where the body is empty."""
    scripted.token = RawResponse(http_response(503, b"", {"x-ms-request-id": "trace-me"}))

    assert refresh(identity).correlation_id == "trace-me"


def test_the_lifetime_counts_from_before_the_request(scripted: ScriptedServer, identity: Identity) -> None:
    """Counted from the arrival of the response, a token would be served after its end."""
    before = len(scripted.posts())
    sent_when_read: list[int] = []

    def now() -> object:
        sent_when_read.append(len(scripted.posts()) - before)
        return NOW

    refresh(identity, now=now)

    assert sent_when_read == [0]


def test_a_correlation_id_that_is_not_fit_for_a_terminal_is_dropped(
    scripted: ScriptedServer, identity: Identity
) -> None:
    """An escape sequence in a header would reach the operator's screen."""
    scripted.token = RawResponse(http_response(503, b"", {"x-ms-request-id": "\x1b[2Jgone"}))

    assert refresh(identity).correlation_id is None


@pytest.mark.parametrize(
    "body",
    [
        '{"access_token": "new", "refresh_token": "rotated", "display": "été"}'.encode("latin-1"),
        token_body(access_token="new", refresh_token="rotated").decode().encode("utf-16"),
        b"\xef\xbb\xbf" + token_body(access_token="new", refresh_token="rotated"),
        token_body(access_token="new", refresh_token="rotated") + b"<!-- proxy -->",
        token_body(access_token="new", refresh_token="rotated")[:-1],
    ],
    ids=["latin-1", "utf-16", "mark", "more after it", "cut"],
)
def test_an_odd_encoding_does_not_cost_a_rotated_refresh_token(
    scripted: ScriptedServer, identity: Identity, body: bytes
) -> None:
    """It is the only copy of the new token."""
    scripted.token = RawResponse(http_response(200, body))

    outcome = refresh(identity)

    assert isinstance(outcome, Refreshed)
    assert (outcome.access_token, outcome.refresh_token) == (Secret("new"), Secret("rotated"))
