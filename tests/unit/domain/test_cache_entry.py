"""The text of a cache entry can be decoded without loss, and a malformed text is refused."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import NOW
from worker.domain.account import MailServers, Status, account_id
from worker.domain.cache_entry import CachedFailure, CacheEntry, decode, encode
from worker.domain.errors import UnreadableSecret
from worker.domain.token import AccessToken, Sealed, Secret, as_text

ANN = account_id("ann@contoso.com")
TOKEN = AccessToken(
    email="ann@contoso.com",
    secret=Secret("EwB4A8l6"),
    obtained_at=NOW,
    expires_at=NOW + timedelta(hours=1),
    version=3,
)
ENTRY = CacheEntry(
    account_id=ANN,
    email="ann@contoso.com",
    status=Status.ACTIVE,
    version=3,
    client="contoso",
    scopes=("https://outlook.office.com/IMAP.AccessAsUser.All", "https://outlook.office.com/SMTP.Send"),
    token=TOKEN,
    refresh_token=as_text(Sealed(b"\x00\x01sealed")),
    failure=CachedFailure(kind="transient", code="http_503", retry_at=NOW + timedelta(seconds=7), noted_at=NOW),
)

NAIVE_2000, NAIVE_2100 = (datetime(year, 1, 1) for year in (2000, 2100))  # noqa: DTZ001 - hypothesis demands naive ones
# Whole milliseconds, which a double represents exactly for every date of a token.
instants = st.datetimes(min_value=NAIVE_2000, max_value=NAIVE_2100, timezones=st.just(UTC)).map(
    lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000)
)


@st.composite
def entries(draw: st.DrawFn) -> CacheEntry:
    version = draw(st.integers(min_value=1, max_value=2**62))
    token = None
    if draw(st.booleans()):
        token = AccessToken(
            email="ann@contoso.com",
            secret=Secret(draw(st.text(min_size=1))),
            obtained_at=draw(instants),
            expires_at=draw(instants),
            version=version,
        )
    return CacheEntry(
        account_id=ANN,
        email="ann@contoso.com",
        status=draw(st.sampled_from(Status)),
        version=version,
        token=token,
        refresh_token=draw(st.none() | st.binary(min_size=1).map(Sealed).map(as_text)),
        use_oauth=draw(st.booleans()),
        mail=draw(st.builds(MailServers, pop_host=st.text(), pop_port=st.integers(1, 65535))),
        failure=draw(
            st.none()
            | st.builds(
                CachedFailure,
                kind=st.text(),
                code=st.text(),
                claims=st.none() | st.text(),
                retry_at=st.none() | instants,
                noted_at=instants,
            )
        ),
    )


@given(entries())
def test_an_entry_is_decoded_unchanged(entry: CacheEntry) -> None:
    """The examples are with and without tokens, in every status."""
    assert decode(encode(entry), ANN) == entry


def test_an_entry_is_json_that_any_language_reads() -> None:
    """Consumers in other languages rely on this format."""
    assert json.loads(encode(ENTRY).reveal()) == {
        "email": "ann@contoso.com",
        "status": "active",
        "version": 3,
        "client": "contoso",
        "authority": None,
        "scopes": "https://outlook.office.com/IMAP.AccessAsUser.All https://outlook.office.com/SMTP.Send",
        "access_token": "EwB4A8l6",
        "obtained_at": NOW.timestamp(),
        "expires_at": (NOW + timedelta(hours=1)).timestamp(),
        "refresh_token": "AAFzZWFsZWQ=",
        "use_oauth": True,
        "mail": {
            "imap_host": "outlook.office365.com",
            "imap_port": 993,
            "smtp_host": "smtp.office365.com",
            "smtp_port": 587,
            "pop_host": "outlook.office365.com",
            "pop_port": 995,
        },
        "problem": {
            "kind": "transient",
            "code": "http_503",
            "claims": None,
            "retry_at": (NOW + timedelta(seconds=7)).timestamp(),
            "noted_at": NOW.timestamp(),
        },
    }


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nb", "é", '","version":9,"x":"'])
def test_no_token_can_break_out_of_its_string(value: str) -> None:
    """An import does not check the characters of a token."""
    entry = replace(ENTRY, token=replace(TOKEN, secret=Secret(value)))

    assert decode(encode(entry), ANN) == entry


def test_times_are_decoded_as_aware_in_utc() -> None:
    """A naive time would mean local time."""
    token = decode(encode(ENTRY), ANN).token

    assert token is not None
    assert token.expires_at.tzinfo is UTC
    assert token.obtained_at.tzinfo is UTC


def changed(**changes: object) -> str:
    return json.dumps({**json.loads(encode(ENTRY).reveal()), **changes})


def without(name: str) -> str:
    data: dict[str, Any] = json.loads(encode(ENTRY).reveal())
    del data[name]
    return json.dumps(data)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("{", id="truncated"),
        pytest.param("[]", id="an array"),
        pytest.param("null", id="null"),
        pytest.param("7", id="a number"),
        *(pytest.param(without(name), id=f"no {name}") for name in json.loads(encode(ENTRY).reveal())),
        pytest.param(changed(status="asleep"), id="an unknown status"),
        pytest.param(changed(version="three"), id="a version in words"),
        pytest.param(changed(version=None), id="no version"),
        pytest.param(changed(expires_at="tomorrow"), id="a time in words"),
        pytest.param(changed(expires_at=1e300), id="a time beyond time"),
        pytest.param(changed(expires_at=float("inf")), id="an infinite time"),
        pytest.param(changed(refresh_token=7), id="a refresh token of a wrong type"),
        pytest.param(changed(access_token=7), id="an access token of a wrong type"),
        pytest.param(changed(access_token={"value": "EwB4A8l6"}), id="an access token in an object"),
        pytest.param(changed(email=None), id="no email"),
        pytest.param(changed(mail=None), id="no servers at all"),
        pytest.param(changed(mail={"imap_host": "imap.example"}), id="servers in part"),
        pytest.param(changed(use_oauth="yes"), id="a flag in words"),
        pytest.param(changed(problem={"kind": "transient"}), id="half a problem"),
        pytest.param(changed(problem="http_503"), id="a problem in a word"),
    ],
)
def test_a_malformed_entry_is_refused(text: str) -> None:
    """The error makes the caller read Postgres. It does not quote the text."""
    with pytest.raises(UnreadableSecret) as refusal:
        decode(Secret(text), ANN)

    assert "EwB4A8l6" not in str(refusal.value)
    assert refusal.value.__cause__ is None
