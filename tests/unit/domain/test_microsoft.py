"""The outcome of each response of the token endpoint, by golden responses and by properties of every response."""

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.factories import NOW
from tests.vectors.answers import Vector, describe, load
from worker.domain.codes import BY_ERROR, BY_NUMBER, CodeRow
from worker.domain.http import HttpResponse
from worker.domain.microsoft import BY_SUBERROR, Verdict, classify
from worker.domain.outcome import (
    Blocked,
    Misconfigured,
    Outcome,
    ReauthRequired,
    Refreshed,
    Scope,
    Throttled,
    Transient,
)

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
        "error_description",
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
def test_a_response_has_the_outcome_of_its_golden_vector(vector: Vector) -> None:
    """Status, code, suberror, error and Retry-After determine the outcome with all its fields."""
    outcome = classify(vector.response, obtained_at=NOW)

    assert describe(outcome, obtained_at=NOW) == vector.expected


@pytest.mark.parametrize(
    ("own", "codes"),
    [
        (Verdict.SCOPES_REFUSED, (70011, 28000, 28002, 28003, 700022, 700023, 650057)),
        (Verdict.AUTHORITY_REFUSED, (50194, 9002332, 9002331, 9001023, 90130, 90124)),
    ],
)
def test_an_error_about_an_account_s_own_setting_has_the_scope_account(own: Verdict, codes: tuple[int, ...]) -> None:
    """With the registration's setting its scope is the registration. Other codes do not depend on this."""
    outcomes = {vector.name: classify(vector.response, obtained_at=NOW, own={own}) for vector in VECTORS}
    read = {name: describe(outcome, obtained_at=NOW) for name, outcome in outcomes.items()}

    otherwise = {vector.name: vector.expected for vector in VECTORS if read[vector.name] != vector.expected}
    assert {expected["code"] for expected in otherwise.values()} == {f"AADSTS{code}" for code in codes}
    assert all(read[name] == {**expected, "scope": "account"} for name, expected in otherwise.items())


_KINDS = {
    Verdict.REAUTH: "reauth_required",
    Verdict.UNPROVEN: "reauth_required",
    Verdict.BLOCKED: "blocked",
    Verdict.MISCONFIGURED: "misconfigured",
    Verdict.PUBLIC_CLIENT: "misconfigured",
    Verdict.SCOPES_REFUSED: "misconfigured",
    Verdict.AUTHORITY_REFUSED: "misconfigured",
    Verdict.THROTTLED: "throttled",
    Verdict.TRANSIENT: "transient",
    Verdict.TRANSIENT_LONG: "transient",
}


@pytest.mark.parametrize("row", BY_NUMBER.values(), ids=lambda row: row.code)
def test_a_listed_code_has_the_outcome_of_its_row(row: CodeRow) -> None:
    """Error name and suberror do not matter."""
    for error, suberror in (("invalid_request", None), ("brand_new_error", "bad_token"), (None, "message_only")):
        outcome = refused(error, codes=[int(row.code.removeprefix("AADSTS"))], suberror=suberror)

        assert (outcome.kind, outcome.code) == (_KINDS[row.verdict], row.code)
        assert not isinstance(outcome, ReauthRequired) or outcome.certain == (row.verdict is Verdict.REAUTH)
        assert (outcome.scope is Scope.CLIENT) == (row.scope is Scope.CLIENT)


@pytest.mark.parametrize("row", BY_ERROR.values(), ids=lambda row: row.code)
def test_a_listed_error_name_has_the_outcome_of_its_row(row: CodeRow) -> None:
    """The response has no number."""
    outcome = refused(row.code)

    assert (outcome.kind, outcome.code) == (_KINDS[row.verdict], row.code)
    assert (outcome.scope is Scope.CLIENT) == (row.scope is Scope.CLIENT)


@pytest.mark.parametrize("error", [*BY_ERROR, "brand_new_error", "access denied", None])
@pytest.mark.parametrize("suberror", [None, *BY_SUBERROR, "brand_new"])
def test_an_unlisted_code_concerns_its_account_only(error: str | None, suberror: str | None) -> None:
    """A breaker that opened for an unknown code would let a few odd accounts stop the healthy ones."""
    assert refused(error, codes=[5099990], suberror=suberror).scope is Scope.ACCOUNT


@given(
    status=st.sampled_from([400, 401, 403, 404, 408, 413, 418]),
    error=st.text(max_size=20).filter(lambda error: error not in BY_ERROR) | st.none(),
    code=st.integers(min_value=1, max_value=10**9).filter(lambda code: f"AADSTS{code}" not in BY_NUMBER) | st.none(),
)
def test_an_unknown_error_concerns_its_account(status: int, error: str | None, code: int | None) -> None:
    """It counts as a strike if it is an error of the token endpoint."""
    outcome = refused(error, codes=[] if code is None else [code], status=status)

    assert outcome.scope is Scope.ACCOUNT
    if code is not None:
        assert outcome == ReauthRequired(code=f"AADSTS{code}", certain=False)
    elif outcome.code != f"http_{status}":
        assert outcome == ReauthRequired(code=str(error), certain=False)


def test_only_unambiguous_codes_concern_the_registration() -> None:
    """They are about its credential, the app itself, or a setting that all of its accounts share."""
    blamed = {row.code for row in BY_NUMBER.values() if refused("x", codes=[int(row.code[6:])]).scope is Scope.CLIENT}

    certain = {row.code for row in BY_NUMBER.values() if "credential" in row.flags}
    settings = {"28000", "28003", "700022", "700023", "650057", "50194", "9001023", "90124", "90130", "70003"}
    assert blamed == certain | {f"AADSTS{code}" for code in settings | {"7000218", "900384", "70001"}}


@pytest.mark.parametrize("code", [code for code in BY_NUMBER if BY_NUMBER[code].scope is Scope.CLIENT])
def test_an_invalid_grant_is_never_the_registration_s(code: str) -> None:
    """The code and the error name contradict each other, so the outcome is not certain."""
    outcome = refused("invalid_grant", codes=[int(code.removeprefix("AADSTS"))])

    assert outcome == ReauthRequired(code=code, certain=False)


@pytest.mark.parametrize(
    "word", sorted([*BY_SUBERROR, "invalid_grant", "interaction_required", "temporarily_unavailable"])
)
def test_an_error_or_suberror_that_decides_has_a_golden_response(word: str) -> None:
    """They decide if the code is unknown."""
    assert any(f'"{word}"'.encode() in vector.content for vector in VECTORS)


@pytest.mark.parametrize("named", ["AADSTS50173: a", "AADSTS70002: a. AADSTS50173: b", "(AADSTS50173: a)"])
def test_a_code_in_the_description_counts_if_the_list_is_missing(named: str) -> None:
    """Old endpoints and some gateways drop ``error_codes``."""
    body = {"error": "invalid_grant", "error_description": named}
    known = {**body, "error_codes": [70008]}

    assert classify(respond(400, body), obtained_at=NOW).code == "AADSTS50173"
    assert classify(respond(400, known), obtained_at=NOW).code == "AADSTS70008"


@pytest.mark.parametrize(
    ("given_id", "kept"),
    [
        ("0f5cbd6e-2c44-4a53-9d0a-6b1c3d2e4f00", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("", False),
        ("\x1b[2J", False),
        ("a b", False),
        ("a\n", False),
        ("\u0661", False),
        (None, False),
    ],
)
def test_a_correlation_id_is_kept_if_it_is_fit_for_a_terminal(given_id: str | None, *, kept: bool) -> None:
    """It comes from a header, and `token-worker show` prints it."""
    for status, body in ((200, {"access_token": "a"}), (400, {"error": "invalid_grant"}), (429, None), (503, None)):
        outcome = classify(respond(status, body, {"x-ms-request-id": given_id} if given_id else None), obtained_at=NOW)

        assert outcome.correlation_id == (given_id if kept else None)


def refused(
    error: str | None, *, codes: list[int] | None = None, suberror: str | None = None, status: int = 400
) -> Outcome:
    fields = {"error": error, "error_codes": codes, "suberror": suberror}
    body = {name: value for name, value in fields.items() if value is not None}
    return classify(respond(status, body), obtained_at=NOW)


@given(status=_STATUSES, body=st.none() | st.dictionaries(_FIELDS | st.text(max_size=5), _JSON, max_size=8))
@example(status=200, body={"access_token": "x", "expires_in": 10**400})
@example(status=400, body={"error": "invalid_grant", "error_codes": ["9" * 5000]})
@example(status=400, body={"error": "invalid_grant", "error_codes": ["\u0663"]})
def test_any_response_has_an_outcome(status: int, body: dict[str, Any] | None) -> None:
    """No JSON makes `classify` raise, because the response may contain the only copy of a new token."""
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
    """Tokens in an error do not count."""
    response = respond(status, {**body, "access_token": "a", "refresh_token": "r"})

    assert not isinstance(classify(response, obtained_at=NOW), Refreshed)


@given(status=st.sampled_from([429, *range(500, 512)]), body=st.dictionaries(_FIELDS, _JSON, max_size=8))
def test_a_busy_service_says_nothing_about_grant_or_app(status: int, body: dict[str, Any]) -> None:
    """The body of a response with status 429 or 5xx does not matter."""
    outcome = classify(respond(status, body, {"retry-after": "7"}), obtained_at=NOW)

    assert isinstance(outcome, Throttled | Transient)
    assert outcome.retry_after == timedelta(seconds=7)


@given(expires_in=st.integers() | st.floats() | st.text(max_size=8) | st.none() | st.booleans())
def test_a_lifetime_is_positive_and_at_most_two_days(expires_in: object) -> None:
    """A wrong lifetime of a response must not break the schedule."""
    body = {"access_token": "a", "expires_in": expires_in}

    outcome = classify(respond(200, body), obtained_at=NOW)

    assert isinstance(outcome, Refreshed)
    assert NOW < outcome.expires_at <= NOW + timedelta(hours=48)


@pytest.mark.parametrize("token", ["\ud800", "a\ud800b"])
def test_a_refresh_token_that_cannot_be_stored_is_no_refresh_token(token: str) -> None:
    """JSON may contain a lone surrogate, which cannot be encoded. The old refresh token must stay."""
    body = {"access_token": "a", "refresh_token": token, "expires_in": 3600}

    outcome = classify(respond(200, body), obtained_at=NOW)

    assert not isinstance(outcome, Refreshed) or outcome.refresh_token is None


@pytest.mark.parametrize("claims", ["\x00", "{}\x00", "\ud800"])
def test_claims_that_cannot_be_stored_are_left_out(claims: str) -> None:
    """Postgres accepts no NUL and no lone surrogate. One such response must not fail the statement of a whole batch."""
    body = {"error": "interaction_required", "claims": claims}

    outcome = classify(respond(400, body), obtained_at=NOW)

    assert isinstance(outcome, ReauthRequired)
    assert outcome.claims is None


def test_the_repr_of_a_response_shows_only_its_status() -> None:
    """Its body may contain tokens."""
    response = respond(200, {"access_token": "very-secret"})

    assert "very-secret" not in repr(response)
    assert "very-secret" not in repr(classify(response, obtained_at=NOW))


def test_every_outcome_has_the_correlation_id() -> None:
    """Microsoft's support needs it."""
    for vector in VECTORS:
        response = vector.response
        traced = HttpResponse(response.status, {**response.headers, "x-ms-request-id": "trace-me"}, response.body)
        assert classify(traced, obtained_at=NOW).correlation_id == "trace-me", vector.name
