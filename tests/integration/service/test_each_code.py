"""Each code of the table once over the wire: the row of its account, and the advice that its user gets."""

import pytest

from tests.integration.installation import Installation
from worker.devkit.emulator import oauth_error
from worker.domain.account import Status
from worker.domain.advice import SENTENCES
from worker.domain.codes import BY_NUMBER, CodeRow, Verdict
from worker.domain.errors import AccountError

_MISCONFIGURED = {
    Verdict.MISCONFIGURED,
    Verdict.PUBLIC_CLIENT,
    Verdict.SCOPES_REFUSED,
    Verdict.AUTHORITY_REFUSED,
}
_KINDS = {
    Verdict.REAUTH: "reauth_required",
    Verdict.UNPROVEN: "reauth_required",
    Verdict.BLOCKED: "blocked",
    Verdict.THROTTLED: "throttled",
    **dict.fromkeys(_MISCONFIGURED, "misconfigured"),
}  # every other failure is transient
_STATES = {Verdict.REAUTH: Status.REAUTH_REQUIRED, Verdict.BLOCKED: Status.BLOCKED}  # every other account stays active
_ERRORS = {Verdict.REAUTH: "needs_user", Verdict.BLOCKED: "blocked_by_admin"} | dict.fromkeys(
    _MISCONFIGURED, "client_misconfigured"
)  # every other error is backing_off
_ADVICE = {Verdict.UNPROVEN: "wait"} | dict.fromkeys(_MISCONFIGURED, "application")  # until the verdict is certain


def test_each_code_has_the_effect_that_its_row_says(installation: Installation) -> None:
    """One account for each code, each in a tenant of its own."""
    rows = {f"{code.lower()}@{code.lower()}.example": row for code, row in BY_NUMBER.items()}
    installation.sign_in(*rows, due=True)
    for email, row in rows.items():
        installation.emulator.add_fault(oauth_error(row.code), email)

    refresh_all(installation)

    states = {email: (status, kind, code) for email, status, kind, code in read_rows(installation)}
    assert states == {email: expected_state(row) for email, row in rows.items()}
    errors = installation.services.tokens.get_many(rows)
    for email, row in rows.items():
        error = errors[email]
        assert isinstance(error, AccountError), row.code
        assert (row.code, error.code) == (row.code, _ERRORS.get(row.verdict, "backing_off"))
        assert (row.code, error.advice) == (row.code, SENTENCES[_ADVICE.get(row.verdict, row.advice)])
        assert row.code in str(error)


def expected_state(row: CodeRow) -> tuple[str, str, str]:
    return _STATES.get(row.verdict, Status.ACTIVE).value, _KINDS.get(row.verdict, "transient"), row.code


def refresh_all(installation: Installation) -> None:
    """Refresh all that is due. Codes of the app registration open its breaker, so it is closed by hand."""
    for _round in range(len(BY_NUMBER)):
        if not installation.refresh_due()["leased"]:
            return
        installation.query("DELETE FROM oauth_clients")
    pytest.fail("accounts stay due")


def read_rows(installation: Installation) -> list[tuple[str, str, str, str]]:
    return installation.query("SELECT email, status, failure_kind, failure_code FROM mail_credentials")
