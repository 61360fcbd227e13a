"""What MSAL and the wire make of an answer: exactly what the golden vectors say, whatever MSAL thinks of it."""

import json

import pytest

from tests.factories import NOW
from tests.integration.identity.asking import ask
from tests.integration.identity.verbatim import Reply, Verbatim, answer, granted
from tests.vectors.answers import Vector, describe, load
from worker.domain.outcome import Refreshed, Transient
from worker.domain.secret import Secret
from worker.identity import Identity


@pytest.mark.parametrize("vector", load(), ids=lambda vector: vector.name)
def test_an_answer_off_the_wire_means_what_the_golden_vector_says(
    says: Verbatim, identity: Identity, vector: Vector
) -> None:
    """Between the wire and the outcome stands MSAL, which must neither lose nor colour anything."""
    says.token = Reply(answer(vector.status, vector.content, vector.headers))

    outcome = ask(identity)

    assert describe(outcome, obtained_at=NOW) == vector.expected
    # The one that is asked once more, as the public client that the grant may belong to.
    assert len(says.posts()) == (2 if outcome.code == "AADSTS700025" else 1)


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
def test_what_msal_stumbles_over_does_not_cost_a_rotated_refresh_token(
    says: Verbatim, identity: Identity, spoiled: dict[str, object]
) -> None:
    """MSAL raises after the rotation; the tokens were in the answer all the same, and they are the only copy."""
    says.token = Reply(answer(200, granted(access_token="new", refresh_token="rotated", **spoiled)))

    outcome = ask(identity)

    assert isinstance(outcome, Refreshed)
    assert (outcome.access_token, outcome.refresh_token) == (Secret("new"), Secret("rotated"))


@pytest.mark.parametrize(
    "odd",
    [{"error": {"code": "ServiceUnavailable"}}, {"error": None}, {"error": "line\nbreak"}, {"error": "\u2603"}],
    ids=str,
)
def test_an_odd_error_does_not_spoil_the_next_question(says: Verbatim, identity: Identity, odd: object) -> None:
    """MSAL remembers the last error for a header of its next request, of whichever account: one oddity, no oracle."""
    says.token = Reply(answer(400, json.dumps(odd).encode()))
    assert isinstance(ask(identity), Transient)

    says.token = Reply(answer(200, granted()))

    assert isinstance(ask(identity), Refreshed)


def test_a_refusal_is_asked_about_again(says: Verbatim, identity: Identity) -> None:
    """MSAL would replay a 400 for a minute and a 429 for as long as it says; pacing is the schedule's business."""
    for status in (400, 429):
        says.token = Reply(answer(status, b'{"error": "invalid_grant"}', {"Retry-After": "3600"}))
        ask(identity)

    says.token = Reply(answer(200, granted()))

    assert isinstance(ask(identity), Refreshed)
    assert len(says.posts()) == 3


def test_the_correlation_id_comes_from_the_header(says: Verbatim, identity: Identity) -> None:
    """It is what Microsoft's support asks for, also where the body says nothing."""
    says.token = Reply(answer(503, b"", {"x-ms-request-id": "trace-me"}))

    assert ask(identity).correlation_id == "trace-me"


def test_the_lifetime_counts_from_before_the_request(says: Verbatim, identity: Identity) -> None:
    """Counted from the arrival of the answer, a token would be served after its end."""
    before = len(says.posts())
    asked_when_read: list[int] = []

    def now() -> object:
        asked_when_read.append(len(says.posts()) - before)
        return NOW

    ask(identity, now=now)

    assert asked_when_read == [0]
