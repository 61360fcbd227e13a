"""Secrets do not show themselves. A mailbox has one spelling, and a spelling has one id."""

import copy
import json
import pickle
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import NOW, make_refreshed
from worker.domain.account import Account, Grant, MailServers, Status, account_id, normalize_email
from worker.domain.errors import InvalidInput
from worker.domain.token import AccessToken, Secret

TOKEN = "EwB4A8l6BAAUbDba3x2OMJElkF7gJ4z"

ADDRESSES = st.from_regex(r"[a-zA-Z0-9.+_-]{1,20}@[a-zA-Z0-9-]{1,20}\.[a-zA-Z]{2,5}", fullmatch=True)


def test_a_secret_does_not_show_itself() -> None:
    """Neither repr, str and format nor an object that holds the secret shows it."""
    secret = Secret(TOKEN)
    grant = Grant(email="ann@contoso.com", refresh_token=secret, access_token=secret)
    token = AccessToken(email="a@b", secret=secret, obtained_at=NOW, expires_at=NOW, version=1)

    shown = [repr(secret), str(secret), f"{secret}", f"{[secret]}", repr(grant), repr(token), repr({secret: secret})]

    assert not [text for text in shown if TOKEN in text]
    assert repr(secret) == "Secret()"


def test_reveal_returns_the_value() -> None:
    """A search for the method finds every use."""
    assert Secret(TOKEN).reveal() == TOKEN
    assert make_refreshed(access_token=Secret(TOKEN)).access_token.reveal() == TOKEN


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_does_not_pickle(protocol: int) -> None:
    """So no broker gets a token, even inside another object. The error does not show it."""
    with pytest.raises(TypeError, match="cannot be pickled") as refusal:
        pickle.dumps(make_refreshed(access_token=Secret(TOKEN)), protocol)

    assert TOKEN not in str(refusal.value)


def test_a_secret_cannot_be_copied_or_dumped() -> None:
    """Copies use pickle, JSON does not support the type, and there is no __dict__."""
    with pytest.raises(TypeError):
        copy.copy(Secret(TOKEN))
    with pytest.raises(TypeError):
        json.dumps(Secret(TOKEN))
    assert not hasattr(Secret(TOKEN), "__dict__")


def test_secrets_are_equal_if_their_values_are() -> None:
    """A secret never equals the bare text."""
    assert Secret("a") == Secret("a")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert hash(Secret("a")) != hash("a")


@pytest.mark.parametrize(
    ("spelling", "normal"),
    [
        ("Ann@Contoso.COM", "ann@contoso.com"),
        ("  ann@contoso.com\n", "ann@contoso.com"),
        ("ann+tag@contoso.com", "ann+tag@contoso.com"),
        ("o'hara@contoso.com", "o'hara@contoso.com"),
        ("JÖRG@MÜLLER.example", "jörg@müller.example"),
        ("ann_fabrikam.com#EXT#@contoso.onmicrosoft.com", "ann_fabrikam.com#ext#@contoso.onmicrosoft.com"),
        ("a@" + "b" * 318, "a@" + "b" * 318),
    ],
)
def test_an_address_has_one_spelling(spelling: str, normal: str) -> None:
    """Case and surrounding space never make two accounts of one mailbox."""
    assert normalize_email(spelling) == normal


@pytest.mark.parametrize(
    "spelling",
    [
        "",
        "  ",
        "ann",
        "@",
        "ann@",
        "@contoso.com",
        "a@b@c",
        "ann smith@contoso.com",
        "ann@contoso.com\nbob@contoso.com",
        "ann\x00@contoso.com",
        "ann@contoso.com\x7f.",
        "a@" + "b" * 319,
        "ann\ud800@contoso.com",
        "an\u200bn@contoso.com",
        "mi\u212ae@contoso.com",
        "m\u0130ke@contoso.com",
        "a\u030ake@contoso.com",
    ],
)
def test_a_text_that_is_no_address_is_refused(spelling: str) -> None:
    """This includes a lone surrogate, which cannot be encoded in UTF-8, hashed or stored."""
    with pytest.raises(InvalidInput):
        account_id(spelling)


@pytest.mark.parametrize("text", ["an\u200bn@contoso.com", "an\u200bn smith@contoso.com", "\u212ae@@contoso.com"])
def test_the_error_does_not_repeat_an_ambiguous_address(text: str) -> None:
    """It would look like another address."""
    with pytest.raises(InvalidInput, match="not an e-mail address") as refusal:
        normalize_email(text)

    assert "contoso" not in str(refusal.value)


def test_the_error_does_not_repeat_pages_of_input() -> None:
    """An application may pass the wrong column."""
    with pytest.raises(InvalidInput) as refusal:
        normalize_email("x" * 10_000)

    assert len(str(refusal.value)) < 200


@given(ADDRESSES | st.text().map(lambda text: f"{text}@x"))
def test_normalizing_twice_changes_nothing(text: str) -> None:
    """A stored address is its own normal form."""
    try:
        normal = normalize_email(text)
    except InvalidInput:
        return
    assert normalize_email(normal) == normal
    assert normal == normal.lower().strip()


@given(ADDRESSES)
def test_every_spelling_has_the_same_id(address: str) -> None:
    """A consumer computes the id without Postgres."""
    assert account_id(address.upper()) == account_id(f" {address.lower()} ") == account_id(address)


def test_the_id_of_an_account_never_changes() -> None:
    """Rows and cache entries of every release have this id."""
    assert account_id("ann@contoso.com") == UUID("cc2236a9-035d-59e5-83b4-3a78b9700e12")


@given(st.lists(ADDRESSES.map(str.lower), unique=True, min_size=2))
def test_different_addresses_have_different_ids(addresses: list[str]) -> None:
    """A shared id would return the token of another account."""
    assert len({account_id(address) for address in addresses}) == len(addresses)


def test_ttl_is_the_time_until_the_end_of_a_token() -> None:
    """It is negative after the end."""
    token = AccessToken(email="a@b", secret=Secret("t"), obtained_at=NOW, expires_at=NOW, version=1)

    assert token.ttl(NOW - timedelta(minutes=1)) == timedelta(minutes=1)
    assert token.ttl(NOW + timedelta(minutes=1)) == timedelta(minutes=-1)
    assert token.value == "t"


def test_an_account_is_leased_until_its_lease_ends() -> None:
    """Another worker may take an account whose lease has ended."""
    account = Account(
        id=account_id("a@b"),
        email="a@b",
        client="default",
        authority=None,
        scopes=(),
        use_oauth=True,
        mail=MailServers(),
        access_token=None,
        refresh_token=None,
        obtained_at=None,
        expires_at=None,
        refresh_token_issued_at=None,
        version=1,
        status=Status.ACTIVE,
        due_at=NOW,
        lease_until=NOW + timedelta(seconds=1),
        failure=None,
        claims=None,
        last_refreshed_at=None,
        signed_in_at=None,
        grant_lifetime=None,
    )

    assert account.is_leased(NOW)
    assert not account.is_leased(NOW + timedelta(seconds=1))
    assert not replace(account, lease_until=None).is_leased(NOW)
