"""The emulator's rules, without HTTP: rotation, inactivity, clients, faults and statistics."""

import json
from datetime import UTC, datetime, timedelta

import jwt
import pytest

from worker.devkit.emulator import (
    DEFAULT_CLIENT_ID,
    DEFAULT_CLIENT_SECRET,
    Emulator,
    EmulatorRequest,
    EmulatorResponse,
    Fault,
    RawAnswer,
    Registration,
    Reset,
    Tampered,
    fault_named,
    oauth_error,
)

BASE = "https://localhost:1"
EMAIL = "ada@example.com"


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **span: float) -> None:
        self.now += timedelta(**span)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def emulator(clock: Clock) -> Emulator:
    return Emulator(clock=clock)


def refresh_form(refresh_token: str, **changes: str) -> dict[str, str]:
    form = {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "client_id": DEFAULT_CLIENT_ID,
        "client_secret": DEFAULT_CLIENT_SECRET,
        "client_info": "1",
    }
    return form | changes


def send(emulator: Emulator, form: dict[str, str]) -> EmulatorResponse:
    request = EmulatorRequest(form, BASE, correlation_id="c0ffee")
    return emulator.respond(request, emulator.admit(request))


def refresh(emulator: Emulator, refresh_token: str, **changes: str) -> dict[str, object]:
    document: dict[str, object] = json.loads(send(emulator, refresh_form(refresh_token, **changes)).body)
    return document


def codes(document: dict[str, object]) -> tuple[object, object]:
    return document.get("error"), document.get("error_codes")


def test_a_refresh_returns_a_new_token_and_the_old_one_stays_valid(emulator: Emulator) -> None:
    """Microsoft does not revoke a refresh token when it is used."""
    old = emulator.enrol(EMAIL).refresh_token
    new = refresh(emulator, old)["refresh_token"]
    assert new != old
    assert emulator.newest_refresh_token(EMAIL) == new
    assert emulator.accepts(old)


def test_each_refresh_token_has_its_own_ninety_days(emulator: Emulator, clock: Clock) -> None:
    """The use of the new token does not extend the life of the old one."""
    old = emulator.enrol(EMAIL).refresh_token
    clock.advance(days=1)
    new = str(refresh(emulator, old)["refresh_token"])
    clock.advance(days=89, hours=23)
    assert "access_token" in refresh(emulator, new)
    clock.advance(hours=1)
    assert codes(refresh(emulator, old)) == ("invalid_grant", [700082])
    assert "access_token" in refresh(emulator, new)


def test_without_rotation_the_response_has_no_refresh_token(emulator: Emulator) -> None:
    """The account keeps the refresh token of its sign-in."""
    token = emulator.enrol(EMAIL, rotate=False).refresh_token
    document = refresh(emulator, token)
    assert "access_token" in document
    assert "refresh_token" not in document
    assert emulator.newest_refresh_token(EMAIL) == token


def test_in_strict_mode_the_reuse_of_a_refresh_token_ends_its_grant(emulator: Emulator) -> None:
    """The used token is refused, and so is the token that replaced it."""
    old = emulator.enrol(EMAIL, strict=True).refresh_token
    new = str(refresh(emulator, old)["refresh_token"])
    assert codes(refresh(emulator, old)) == ("invalid_grant", [70008])
    assert codes(refresh(emulator, new)) == ("invalid_grant", [50173])


def test_a_revoked_account_is_refused_until_it_signs_in_again(emulator: Emulator) -> None:
    """A revocation ends old sign-ins, not future ones."""
    old = emulator.enrol(EMAIL).refresh_token
    emulator.revoke(EMAIL.upper())
    assert codes(refresh(emulator, old)) == ("invalid_grant", [50173])
    assert "access_token" in refresh(emulator, emulator.enrol(EMAIL).refresh_token)


def test_an_access_token_is_a_signed_jwt_dated_by_the_clock(emulator: Emulator, clock: Clock) -> None:
    """It has the claims, the size and the lifetime of a real one."""
    document = refresh(emulator, emulator.enrol(EMAIL, access_token_lifetime=timedelta(minutes=5)).refresh_token)
    token = str(document["access_token"])
    claims = jwt.decode(
        token,
        emulator.key.public,
        ["RS256"],
        audience="https://outlook.office.com",
        options={"verify_exp": False},
    )
    issued = int(clock.now.timestamp())
    assert (claims["iat"], claims["nbf"], claims["exp"]) == (issued, issued, issued + 300)
    assert document["expires_in"] == 300
    assert claims["upn"] == claims["preferred_username"] == EMAIL
    assert claims["scp"] == "IMAP.AccessAsUser.All SMTP.Send"
    assert claims["iss"].startswith(BASE)
    assert 1600 < len(token) < 2000
    assert 1200 < len(str(document["refresh_token"])) < 1400
    assert 800 < len(str(document["id_token"])) < 1100


def test_lifetimes_spread_over_their_range_the_same_in_every_run(clock: Clock) -> None:
    """By default access tokens live sixty to ninety minutes."""
    runs = []
    for _ in range(2):
        emulator = Emulator(clock=clock)
        token = emulator.enrol(EMAIL).refresh_token
        runs.append([refresh(emulator, token)["expires_in"] for _ in range(50)])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 40
    assert all(isinstance(seconds, int) and 3600 <= seconds <= 5400 for seconds in runs[0])


def test_refresh_in_is_sent_only_where_it_is_set(emulator: Emulator) -> None:
    """Ordinary responses have no such field."""
    plain, early = emulator.enrol(EMAIL), emulator.enrol("bob@example.com", refresh_in=timedelta(minutes=10))
    assert "refresh_in" not in refresh(emulator, plain.refresh_token)
    assert refresh(emulator, early.refresh_token)["refresh_in"] == 600


def test_the_repr_of_a_grant_shows_no_token(emulator: Emulator) -> None:
    """Tokens never reach a repr."""
    grant = emulator.enrol(EMAIL)
    assert grant.access_token not in repr(grant)
    assert grant.refresh_token not in repr(grant)


def test_a_wrong_secret_is_invalid_client(emulator: Emulator) -> None:
    """The status is 401, and no refresh token changes."""
    token = emulator.enrol(EMAIL).refresh_token
    response = send(emulator, refresh_form(token, client_secret="wrong"))
    assert response.status == 401
    assert codes(json.loads(response.body)) == ("invalid_client", [7000215])
    assert emulator.newest_refresh_token(EMAIL) == token


def test_a_secret_can_be_rotated(emulator: Emulator) -> None:
    """For a while both secrets are valid. A secret that was removed is refused."""
    token = emulator.enrol(EMAIL).refresh_token
    emulator.registrations.register(Registration(secrets=("old", "new")))
    assert "access_token" in refresh(emulator, token, client_secret="old")
    assert "access_token" in refresh(emulator, token, client_secret="new")
    emulator.registrations.register(Registration(secrets=("new",)))
    assert codes(refresh(emulator, token, client_secret="old")) == ("invalid_client", [7000215])


def test_a_confidential_sign_in_cannot_be_refreshed_without_a_credential(emulator: Emulator) -> None:
    """This holds even if the registration allows public clients."""
    token = emulator.enrol(EMAIL).refresh_token
    assert codes(refresh(emulator, token, client_secret="")) == ("invalid_client", [7000218])


def test_a_refresh_token_is_bound_to_its_client(emulator: Emulator) -> None:
    """Another registration cannot use it, and an unknown one gets another error."""
    token = emulator.enrol(EMAIL).refresh_token
    emulator.registrations.register(Registration("another", secrets=("s",)))
    document = refresh(emulator, token, client_id="another", client_secret="s")
    assert (document["error"], document["suberror"]) == ("invalid_grant", "client_mismatch")
    assert codes(refresh(emulator, token, client_id="unknown")) == ("unauthorized_client", [700016])


def test_a_damaged_refresh_token_is_malformed(emulator: Emulator) -> None:
    """A token that is cut short or not decrypted gets another code than one that was never issued."""
    token = emulator.enrol(EMAIL).refresh_token
    for damaged in (token[:500], token[3:], f"{token}A", "gAAAAABm", f"{token[:-1]}="):
        assert codes(refresh(emulator, damaged)) == ("invalid_grant", [9002313])
    assert codes(refresh(emulator, never_issued())) == ("invalid_grant", [70000])


@pytest.mark.parametrize(
    ("scope", "code"),
    [
        ("00000003-0000-0000-c000-000000000000/Mail.Read https://graph.microsoft.com//User.Read", None),
        ("https://outlook.office.com/SMTP.Send HTTPS://Outlook.Office365.com/IMAP.AccessAsUser.All", None),
        ("https://outlook.office.com/SMTP.Send 00000003-0000-0000-c000-000000000000/Mail.Read", [28000]),
    ],
)
def test_a_resource_counts_once_whatever_it_is_called(emulator: Emulator, scope: str, code: list[int] | None) -> None:
    document = refresh(emulator, emulator.enrol("ann@contoso.com").refresh_token, scope=scope)

    assert document.get("error_codes") == code


def never_issued() -> str:
    """A well-formed refresh token of another platform."""
    return Emulator().enrol(EMAIL).refresh_token


def test_a_refusal_has_microsofts_shape(emulator: Emulator) -> None:
    """The test compares each field, including the correlation id of the request."""
    document = refresh(emulator, never_issued())
    assert str(document["error_description"]).startswith("AADSTS70000: ")
    assert document["timestamp"] == "2026-01-01 00:00:00Z"
    assert document["correlation_id"] == "c0ffee"
    assert document["error_uri"] == f"{BASE}/error?code=70000"
    assert document["error_codes"] == [70000]
    assert "trace_id" in document


def test_a_fault_occurs_as_often_as_it_was_injected(emulator: Emulator) -> None:
    """The account's own faults come first, then those of all accounts, then normal responses."""
    token = emulator.enrol(EMAIL).refresh_token
    emulator.add_fault(oauth_error("AADSTS90033"), times=1)
    emulator.add_fault(oauth_error("50196"), EMAIL, times=2)
    got = [codes(refresh(emulator, token)) for _ in range(4)]
    loop = ("invalid_grant", [50196])
    assert got == [loop, loop, ("temporarily_unavailable", [90033]), (None, None)]


def test_a_fault_of_one_account_does_not_affect_others_and_can_be_cleared(emulator: Emulator) -> None:
    """Without a number of times a fault stays until it is cleared."""
    mine, other = emulator.enrol(EMAIL).refresh_token, emulator.enrol("bob@example.com").refresh_token
    emulator.add_fault(oauth_error("AADSTS50076"), EMAIL)
    assert [refresh(emulator, mine).get("suberror") for _ in range(3)] == ["basic_action"] * 3
    assert "access_token" in refresh(emulator, other)
    emulator.clear_faults(EMAIL)
    assert "access_token" in refresh(emulator, mine)


@pytest.mark.parametrize(
    ("fault", "status", "start"),
    [
        (fault_named("html-503"), 503, b"<!DOCTYPE"),
        (fault_named("json-array"), 200, b"[]"),
        (RawAnswer(b"\xff", 418, "x/y", "Thu, 01 Jan 2026 00:01:00 GMT"), 418, b"\xff"),
    ],
)
def test_a_raw_answer_is_sent_unchanged(emulator: Emulator, fault: Fault, status: int, start: bytes) -> None:
    """The emulator makes no grant."""
    token = emulator.enrol(EMAIL).refresh_token
    emulator.add_fault(fault)
    response = send(emulator, refresh_form(token))
    assert response.status == status
    assert response.body.startswith(start)
    assert emulator.newest_refresh_token(EMAIL) == token
    assert emulator.statistics().failures == 1


def test_a_tampered_success_has_rotated(emulator: Emulator) -> None:
    """The grant is made, but fields of the response are changed."""
    token = emulator.enrol(EMAIL).refresh_token
    emulator.add_fault(Tampered({"id_token": "garbage"}, frozenset({"client_info"})))
    document = refresh(emulator, token)
    assert document["id_token"] == "garbage"
    assert "client_info" not in document
    assert document["refresh_token"] == emulator.newest_refresh_token(EMAIL) != token


@pytest.mark.parametrize("after", [False, True])
def test_a_reset_loses_the_grant_only_if_it_comes_after(emulator: Emulator, after: bool) -> None:
    """The client cannot see whether the token was rotated."""
    token = emulator.enrol(EMAIL).refresh_token
    emulator.add_fault(Reset(after=after))
    assert send(emulator, refresh_form(token)).reset
    assert (emulator.newest_refresh_token(EMAIL) != token) is after


def test_statistics_count_by_account_and_instant(emulator: Emulator, clock: Clock) -> None:
    """The case of e-mail addresses does not matter. Unknown tokens count in the totals only."""
    token = emulator.enrol(EMAIL.upper()).refresh_token
    first = clock.now
    refresh(emulator, token)
    clock.advance(seconds=5)
    refresh(emulator, token, client_secret="wrong")
    refresh(emulator, "unknown")
    seen = emulator.statistics()
    mine = seen.by_account[EMAIL]
    assert (seen.requests, seen.successes, seen.failures) == (3, 1, 2)
    assert (mine.requests, mine.successes, mine.failures, mine.refreshes) == (2, 1, 1, 1)
    assert mine.instants == (first, first + timedelta(seconds=5))
    assert mine.refreshed_at == (first,)


def test_an_unknown_fault_name_is_refused() -> None:
    """A misspelt name must not stand for another fault."""
    with pytest.raises(ValueError, match="no fault is named"):
        fault_named("html-5O3")
