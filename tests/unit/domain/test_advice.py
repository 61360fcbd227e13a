"""What users are told: a sentence for every code that stands for them, and none for codes that nobody knows."""

import pytest

from worker.domain.advice import BY_CODE, BY_REASON, advice
from worker.domain.errors import AccountError, BlockedByAdmin, ClientMisconfigured, NeedsUser
from worker.domain.microsoft import BY_CODE as VERDICTS
from worker.domain.microsoft import Verdict
from worker.mail import MailboxRefused

ANN = "ann@contoso.com"
_SILENT = {70000}  # says that the grant is dead, and not why


def _subclasses(kind: type[AccountError]) -> set[type[AccountError]]:
    found = set(kind.__subclasses__())
    return found.union(*(_subclasses(each) for each in found))


def test_every_error_of_an_account_has_its_sentence() -> None:
    """Whatever else is known; MailboxRefused is one by inheritance, once its module is imported."""
    assert {kind.code for kind in _subclasses(AccountError)} | {MailboxRefused.code} == set(BY_CODE)


@pytest.mark.parametrize("sentence", sorted({*BY_CODE.values(), *BY_REASON.values()}))
def test_a_sentence_is_one_and_for_people(sentence: str) -> None:
    """No code, no jargon, nothing that only an operator knows."""
    assert sentence.endswith(".")
    assert sentence.count(".") == 1
    assert not any(word in sentence for word in ("AADSTS", "token", "OAuth", "refresh", "Postgres"))


def test_whatever_needs_a_user_or_an_administrator_says_more_than_that() -> None:
    """The table of codes and that of sentences belong together; a new code wants a sentence."""
    wanted = {code for code, verdict in VERDICTS.items() if verdict in {Verdict.REAUTH, Verdict.BLOCKED}} - _SILENT

    assert {code for code in wanted if f"AADSTS{code}" not in BY_REASON} == set()
    known = {f"AADSTS{code}" for code in VERDICTS}
    assert {reason for reason in BY_REASON if reason.startswith("AADSTS")} <= known


def test_an_error_advises_by_its_reason() -> None:
    """Else by what kind of error it is."""
    assert "second proof" in NeedsUser(ANN, "AADSTS50076").advice
    assert "grant consent" in BlockedByAdmin(ANN, "AADSTS90094").advice
    assert NeedsUser(ANN, "AADSTS70000").advice == BY_CODE["needs_user"]
    assert "does not know your organization" in BlockedByAdmin(ANN, "AADSTS90002").advice
    assert ClientMisconfigured(ANN, "default", "AADSTS90002").advice == BY_CODE["client_misconfigured"]
    assert advice("a code to come") == "Your mailbox cannot be read at the moment."
