"""All whole tokens of a damaged or oddly encoded response are read, and no others."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.domain.http import decode

TOKENS = {"access_token": "NEW", "refresh_token": "ROTATED", "expires_in": 3599}
PLAIN = json.dumps(TOKENS)
REFUSAL = {"error": "invalid_grant", "error_description": "l'échec é", "error_codes": [50173]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_an_encoding_is_recognized(encoding: str) -> None:
    """RFC 8259 demands UTF-8 without a byte order mark, but a proxy or a gateway may change the encoding."""
    assert decode(PLAIN.encode(encoding)) == TOKENS
    assert decode(json.dumps(REFUSAL, ensure_ascii=False).encode(encoding)) == REFUSAL


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "iso-8859-15"])
def test_bytes_of_another_encoding_cost_only_the_field_they_are_in(encoding: str) -> None:
    """No decision depends on a localized description."""
    decoded = decode(json.dumps(REFUSAL, ensure_ascii=False).encode(encoding))

    assert decoded is not None
    assert {**decoded, "error_description": None} == {**REFUSAL, "error_description": None}


@pytest.mark.parametrize(
    "body",
    [
        f"\r\n  {PLAIN}\r\n",
        f"\ufeff{PLAIN}",
        f"{PLAIN}\x00\x00",
        f"{PLAIN}<!-- served by proxy-7 -->",
        f"{PLAIN}{PLAIN}",
        f"{PLAIN},",
        PLAIN.replace("}", ', "scope": "a\tb\nc"}'),
        PLAIN.replace("}", ', "x": NaN}'),
        PLAIN.replace("}", ', "x": ' + "9" * 5000 + "}"),
        PLAIN.replace("{", '{"refresh_token": "OLD", "access_token": null, '),
        PLAIN.replace("}", ', "refresh_token": "", "access_token": null}'),
    ],
)
def test_other_oddities_do_not_lose_the_tokens(body: str) -> None:
    """The bodies have spaces, byte order marks, text after the object, control characters, or repeated keys."""
    decoded = decode(body.encode())

    assert decoded is not None
    assert {name: decoded[name] for name in TOKENS} == TOKENS


@pytest.mark.parametrize(
    "body",
    [
        PLAIN[:-1],
        PLAIN.replace("}", ', "id_token": "eyJ'),
        PLAIN.replace("}", ", }"),
        PLAIN.replace("}", ', "scope": "say "hello""}'),
        PLAIN.replace("}", ', "x": ' + "[" * 100_000),
    ],
    ids=["cut", "cut in a string", "comma", "quotes", "depth"],
)
def test_whole_tokens_are_read_from_invalid_json(body: str) -> None:
    """The body has the only copy of them."""
    assert decode(body.encode()) == TOKENS


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        f"[{PLAIN}]",
        '"invalid_grant"',
        f"<html><script>var x = {PLAIN}</script></html>",
        '{"access_token": "NE',
        '{"refresh_token": "ROTATED", ',
        '{"error": "invalid_grant", "error_codes": [501',
        "Too Many Requests",
    ],
)
def test_other_bodies_are_none(body: str) -> None:
    """An error that is cut short does not change an account, and a page of a proxy contains no tokens."""
    assert decode(body.encode()) is None


def test_a_token_that_is_cut_short_is_no_token() -> None:
    """The old refresh token stays."""
    assert decode(b'{"access_token": "NEW", "expires_in": 3599, "refresh_token": "ROT') == {
        "access_token": "NEW",
        "expires_in": 3599,
    }


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_not(body: bytes) -> None:
    """No body raises an exception."""
    assert decode(body) is None or isinstance(decode(body), dict)


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_around_does_not_raise(before: str, after: str) -> None:
    """The same with a valid response in the middle."""
    body = (before + PLAIN + after).encode("utf-8", "surrogatepass")

    assert decode(body) is None or isinstance(decode(body), dict)


@given(
    st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8) | st.none() | st.floats(allow_nan=False))
)
def test_proper_json_is_read_as_json_reads_it(fields: dict[str, Any]) -> None:
    """The lenient decoder does not change it."""
    assert decode(json.dumps(fields).encode()) == fields
