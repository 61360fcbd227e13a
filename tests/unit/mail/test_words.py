"""The quoted words of a mail server contain no token and no control character."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.mail.words import shown, spellings

# A JWT with short parts, which a rule about long words would not find.
TOKEN = "eyJ0eXAi.eyJhdWQiOiJodHRwcz.Qm9iIGlzIG5vdA.kZ5tR-w_pL2xVn"
RESPONSE = f"user=ann@contoso.com\x01auth=Bearer {TOKEN}\x01\x01"
SECRETS = spellings(RESPONSE, TOKEN)
BASE64 = base64.b64encode(RESPONSE.encode()).decode()


@pytest.mark.parametrize(
    "said",
    [
        f"rejected: {TOKEN}",
        f"rejected: {TOKEN[20:32]}",
        f"rejected: {BASE64}",
        f"rejected: {BASE64[50:70]}",
        f"rejected: {base64.b64encode(b'Bearer ' + TOKEN.encode()).decode()}",
        "rejected: " + " ".join(TOKEN[start : start + 6] for start in range(0, len(TOKEN), 6)),
        "rejected: " + "\r\n".join(TOKEN[start : start + 30] for start in range(0, len(TOKEN), 30)),
        f"rejected: {TOKEN.upper()}",
    ],
)
def test_no_piece_of_the_token_is_shown(said: str) -> None:
    left = shown(said, SECRETS).lower()
    assert left.startswith("rejected: …")
    dense = "".join(left.split())
    assert not any(TOKEN[start : start + 8].lower() in dense for start in range(len(TOKEN) - 7))


@given(st.text(max_size=40), st.integers(0, len(TOKEN) - 12), st.integers(8, 12), st.text(max_size=40))
def test_a_piece_of_the_token_is_masked_between_other_words(before: str, start: int, length: int, after: str) -> None:
    piece = TOKEN[start : start + length]
    assert piece not in shown(f"{before} {piece} {after}", SECRETS)


@pytest.mark.parametrize("strange", ["eyJhbGciOi.eyJpc3M.c2ln", "dXNlcj1hbm5AY29udG9zby5jb20BYXV0aD1CZWFy"])
def test_other_texts_that_look_like_a_token_are_masked(strange: str) -> None:
    assert shown(f"rejected: {strange}") == "rejected: …"


def test_ordinary_words_stay() -> None:
    exchange = "5.7.3 Authentication unsuccessful [MN2PR13CA0005.namprd13.prod.outlook.com 2023-09-12T20:59:57.214Z]"
    assert shown(exchange, SECRETS) == exchange
    assert shown("Anmeldung nicht möglich", SECRETS) == "Anmeldung nicht möglich"


def test_control_characters_are_escaped() -> None:
    assert shown("no\r\n\x1b[2Jadmin logged in\u202e") == r"no\r\n\x1b[2Jadmin logged in\u202e"


def test_long_texts_are_cut() -> None:
    assert len(shown("so it is " * 1_000_000)) == 500
