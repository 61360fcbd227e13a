"""What each answer of the token endpoint means: the golden answers, and laws that hold for any answer at all."""

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.factories import NOW
from tests.vectors.answers import Vector, describe, load
from worker.domain.http import HttpResponse
from worker.domain.microsoft import BY_CODE, BY_ERROR, BY_SUBERROR, Verdict, classify
from worker.domain.outcome import Blocked, Misconfigured, ReauthRequired, Refreshed, Throttled, Transient

VECTORS = load()
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = st.sampled_from(
    [
        "error",
        "error_codes",
        "suberror",
        "claims",
        "access_token",
        "refresh_token",
        "expires_in",
        "refresh_in",
    ]
)
_STATUSES = st.sampled_from([200, 201, 302, 400, 401, 403, 404, 429, 500, 503])


def respond(status: int, body: object, headers: dict[str, str] | None = None) -> HttpResponse:
    return HttpResponse(status, headers or {}, json.dumps(body).encode())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_an_answer_means_what_the_golden_vector_says(vector: Vector) -> None:
    """Status, code, suberror, error and Retry-After lead to one outcome, with every one of its fields."""
    outcome = classify(vector.response, obtained_at=NOW)

    assert describe(outcome, obtained_at=NOW) == vector.expected


@pytest.mark.parametrize(
    ("own", "codes", "errors"),
    [
        (Verdict.SCOPES_REFUSED, (70011, 28002, 700022, 700023, 650057), ("invalid_scope", "invalid_resource")),
        (Verdict.AUTHORITY_REFUSED, (50194, 9002332, 9002331, 9001023, 90130, 90124), ()),
    ],
)
def test_what_an_account_has_chosen_is_its_own_affair(
    own: Verdict, codes: tuple[int, ...], errors: tuple[str, ...]
) -> None:
    """Refused is then that, and not the app registration's; nothing else is read otherwise."""
    outcomes = {vector.name: classify(vector.response, obtained_at=NOW, own={own}) for vector in VECTORS}
    read = {name: describe(outcome, obtained_at=NOW) for name, outcome in outcomes.items()}

    otherwise = {vector.name: vector.expected for vector in VECTORS if read[vector.name] != vector.expected}
    assert {name.removeprefix("misconfigured: ") for name in otherwise} == {
        *(f"AADSTS{code}" for code in codes),
        *(f"an unlisted code with error {error}" for error in errors),
    }
    assert all(read[name] == {**expected, "scope": "account"} for name, expected in otherwise.items())


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_every_code_in_the_table_has_a_golden_answer(code: int) -> None:
    """A row nobody wrote an answer for could change its meaning unseen."""
    assert any(f"AADSTS{code}" == vector.expected["code"] for vector in VECTORS)


@pytest.mark.parametrize("word", sorted([*BY_SUBERROR, *BY_ERROR]))
def test_every_error_name_in_the_tables_has_a_golden_answer(word: str) -> None:
    """Likewise for error and suberror, which decide where the code is unknown."""
    assert any(f'"{word}"'.encode() in vector.content for vector in VECTORS)


@given(status=_STATUSES, body=st.none() | st.dictionaries(_FIELDS | st.text(max_size=5), _JSON, max_size=8))
@example(status=200, body={"access_token": "x", "expires_in": 10**400})
@example(status=400, body={"error": "invalid_grant", "error_codes": ["9" * 5000]})
@example(status=400, body={"error": "invalid_grant", "error_codes": ["\u0663"]})
def test_any_answer_has_a_meaning(status: int, body: dict[str, Any] | None) -> None:
    """Nothing that can arrive as JSON makes classify raise: the answer may carry the only copy of a new token."""
    outcome = classify(respond(status, body), obtained_at=NOW)

    assert isinstance(outcome, Refreshed | Throttled | Transient | ReauthRequired | Blocked | Misconfigured)
    assert 0 < len(outcome.code) <= 64
    assert outcome.code.isascii()
    assert outcome.code.isprintable()


@given(
    status=_STATUSES.filter(lambda status: status != 200),
    body=st.dictionaries(_FIELDS, _JSON, max_size=8),
)
def test_only_a_200_refreshes(status: int, body: dict[str, Any]) -> None:
    """Tokens in an error are not tokens."""
    answer = respond(status, {**body, "access_token": "a", "refresh_token": "r"})

    assert not isinstance(classify(answer, obtained_at=NOW), Refreshed)


@given(status=st.sampled_from([429, *range(500, 512)]), body=st.dictionaries(_FIELDS, _JSON, max_size=8))
def test_a_busy_service_condemns_nobody(status: int, body: dict[str, Any]) -> None:
    """429 and 5xx say nothing about the grant or the app, whatever stands in the body."""
    outcome = classify(respond(status, body, {"retry-after": "7"}), obtained_at=NOW)

    assert isinstance(outcome, Throttled | Transient)
    assert outcome.retry_after == timedelta(seconds=7)


@given(expires_in=st.integers() | st.floats() | st.text(max_size=8) | st.none() | st.booleans())
def test_a_lifetime_is_positive_and_at_most_two_days(expires_in: object) -> None:
    """Whatever the server says of the lifetime, the schedule that follows is sane."""
    body = {"access_token": "a", "expires_in": expires_in}

    outcome = classify(respond(200, body), obtained_at=NOW)

    assert isinstance(outcome, Refreshed)
    assert NOW < outcome.expires_at <= NOW + timedelta(hours=48)


@pytest.mark.parametrize("token", ["\ud800", "a\ud800b"])
def test_a_refresh_token_that_cannot_be_stored_is_no_refresh_token(token: str) -> None:
    """A lone surrogate passes JSON, and no encoding: the old refresh token must stay."""
    body = {"access_token": "a", "refresh_token": token, "expires_in": 3600}

    outcome = classify(respond(200, body), obtained_at=NOW)

    assert not isinstance(outcome, Refreshed) or outcome.refresh_token is None


@pytest.mark.parametrize("claims", ["\x00", "{}\x00", "\ud800"])
def test_claims_that_cannot_be_stored_are_left_out(claims: str) -> None:
    """Postgres takes no NUL and no lone surrogate; one such answer must not spoil the statement it shares."""
    body = {"error": "interaction_required", "claims": claims}

    outcome = classify(respond(400, body), obtained_at=NOW)

    assert isinstance(outcome, ReauthRequired)
    assert outcome.claims is None


def test_an_answer_shows_only_its_status() -> None:
    """Its body may hold tokens."""
    response = respond(200, {"access_token": "very-secret"}, {"x-secret": "very-secret"})

    assert repr(response) == "HttpResponse(status=200)"
    assert "very-secret" not in repr(classify(response, obtained_at=NOW))


def test_the_correlation_id_goes_with_every_outcome() -> None:
    """It is what Microsoft's support asks for."""
    for vector in VECTORS:
        response = vector.response
        traced = HttpResponse(response.status, {**response.headers, "x-ms-request-id": "trace-me"}, response.body)
        assert classify(traced, obtained_at=NOW).correlation_id == "trace-me", vector.name
