"""The table of codes is complete and consistent, and docs/error-codes.md is written from it."""

import re
from collections import Counter
from typing import get_args

import pytest

from worker.devkit.error_codes import PAGE, SOURCES, render
from worker.domain.advice import SENTENCES
from worker.domain.codes import BY_ERROR, BY_NUMBER, ROWS, CodeRow, Flag, Verdict, explain, flagged, hint
from worker.domain.outcome import Scope

_KINDS = ["number", "error", "worker"]
_SIGN_IN_HELPS = {Verdict.REAUTH, Verdict.UNPROVEN}
_THREAD = re.compile(r"[\w.-]+/[\w.-]+(#[0-9]+)?")


def test_the_table_has_the_codes_that_microsoft_publishes() -> None:
    """Fewer numbers mean that rows were lost."""
    assert len(BY_NUMBER) >= 320
    assert all(re.fullmatch(r"AADSTS[0-9]{5,7}", code) for code in BY_NUMBER)


def test_no_code_has_two_rows() -> None:
    """The second would silently replace the first."""
    assert [code for code, times in Counter(row.code for row in ROWS).items() if times > 1] == []


def test_the_table_is_sorted() -> None:
    """The order is by kind, then by number or name, so that readers find a row and diffs are short."""
    assert [*ROWS] == sorted(ROWS, key=_position)


def _position(row: CodeRow) -> tuple[int, int, str]:
    return _KINDS.index(row.kind), int(row.code.removeprefix("AADSTS")) if row.kind == "number" else 0, row.code


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.code)
def test_a_row_is_complete(row: CodeRow) -> None:
    """It has a sentence for the user, one for the operator, and a source."""
    assert row.advice in SENTENCES
    assert row.hint.endswith(".")
    assert row.hint[0].isupper()
    assert row.hint.count(". ") == 0
    assert len(row.hint) <= 120
    assert row.source in SOURCES or _THREAD.fullmatch(row.source)
    assert row.flags <= set(get_args(Flag))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.code)
def test_a_row_does_not_contradict_itself(row: CodeRow) -> None:
    """A user is advised to sign in only if that helps. A breaker opens only for codes of the registration."""
    advises_sign_in = "sign in" in SENTENCES[row.advice] and row.advice != "other_account"
    assert advises_sign_in == (row.verdict in _SIGN_IN_HELPS)
    if row.verdict in {Verdict.REAUTH, Verdict.UNPROVEN, Verdict.BLOCKED}:
        assert row.scope in {Scope.ACCOUNT, Scope.RESOURCE, Scope.TENANT}
    if "credential" in row.flags:
        assert (row.verdict, row.scope) == (Verdict.MISCONFIGURED, Scope.CLIENT)
    if "abandoned" in row.flags:
        assert (row.verdict, row.scope) in {(Verdict.MISCONFIGURED, scope) for scope in (Scope.TENANT, Scope.RESOURCE)}
    if "aged out" in row.flags:
        assert row.verdict is Verdict.REAUTH


def test_each_sentence_of_advice_is_used() -> None:
    """A row uses it, or an error of the client library (see test_advice)."""
    assert {row.advice for row in ROWS} | _OF_ERRORS == set(SENTENCES)


_OF_ERRORS = {"not_connected", "inactive", "blocked", "token_refused", "mailbox_refused", "unread"}


@pytest.mark.parametrize(
    ("code", "row"),
    [
        ("AADSTS50173", BY_NUMBER["AADSTS50173"]),
        ("invalid_grant", BY_ERROR["invalid_grant"]),
        ("http_503", explain("http_5xx")),
        ("discovery_http_404", explain("discovery_http_4xx")),
        ("timeout", explain("timeout")),
    ],
)
def test_a_code_of_the_ledger_is_explained(code: str, row: CodeRow) -> None:
    """It may be Microsoft's or the worker's own."""
    assert row is not None
    assert explain(code) is row
    assert hint(code) == row.hint


@pytest.mark.parametrize("code", ["AADSTS1", "AADSTS5099990", "brand_new_error", "", "http_", "ok"])
def test_the_hint_says_that_a_code_is_unknown(code: str) -> None:
    """Operators can report it, so that it gets a row."""
    assert explain(code) is None
    assert "does not know this code" in hint(code)


def test_every_code_that_the_worker_makes_itself_is_explained() -> None:
    """The test lists them as in the source code."""
    for code in ("dns", "connect_failed", "tls", "timeout", "connect_timeout", "connection_lost", "malformed_answer"):
        assert explain(code) is not None, code
    for code in ("discovery_failed", "internal_error", "authority_refused", "unknown_client", "no_credential"):
        assert explain(code) is not None, code
    for code in ("pending_result", "rate_limited", "tenant_throttled", "unavailable", "unreadable", "altered"):
        assert explain(code) is not None, code


def test_flags_have_codes_in_the_form_of_the_ledger() -> None:
    """Other modules compare an outcome's code with them."""
    assert {"invalid_client", "AADSTS7000215", "AADSTS700027"} <= flagged("credential")
    assert {"AADSTS700016", "AADSTS90002"} <= flagged("abandoned")
    assert {"AADSTS70043", "AADSTS700084"} <= flagged("aged out")


def test_the_page_is_written_from_the_table() -> None:
    """If this fails, run `make docs`."""
    assert PAGE.read_text() == render()
