"""Users get a sentence of advice for every code, which fits their kind of account."""

from datetime import timedelta

import pytest

from worker.domain.advice import BY_CODE, PERSONAL, SENTENCES, advice, is_personal
from worker.domain.codes import BY_NUMBER, Verdict
from worker.domain.errors import AccountError, BackingOff, BlockedByAdmin, ClientMisconfigured, NeedsUser
from worker.mail import MailboxRefused

ANN = "ann@contoso.com"
PAT = "pat@outlook.com"
MINUTE = timedelta(minutes=1)


def _subclasses(kind: type[AccountError]) -> set[type[AccountError]]:
    found = set(kind.__subclasses__())
    return found.union(*(_subclasses(each) for each in found))


def test_every_error_of_an_account_has_its_sentence() -> None:
    """MailboxRefused is an AccountError as well, once its module is imported."""
    assert {kind.code for kind in _subclasses(AccountError)} | {MailboxRefused.code} == set(BY_CODE)
    assert set(BY_CODE.values()) <= set(SENTENCES)


@pytest.mark.parametrize("sentence", sorted({*SENTENCES.values(), *PERSONAL.values()}))
def test_a_sentence_is_one_and_for_people(sentence: str) -> None:
    """It contains no code and no word that only operators know."""
    assert sentence.endswith(".")
    assert sentence.count(".") == 1
    assert not any(word in sentence for word in ("AADSTS", "token", "OAuth", "refresh", "Postgres"))


@pytest.mark.parametrize("key", SENTENCES)
def test_personal_accounts_have_no_administrator(key: str) -> None:
    """A sentence that names an administrator or an organization has another form for personal accounts."""
    sentence = PERSONAL.get(key, SENTENCES[key])

    assert "administrator" not in sentence
    assert "organization" not in sentence


@pytest.mark.parametrize("code", BY_NUMBER)
def test_only_work_accounts_are_referred_to_their_administrator(code: str) -> None:
    """This holds for every error that may have the code."""
    for error in ("needs_user", "blocked_by_admin", "backing_off", "client_misconfigured"):
        assert "administrator" not in advice(error, code, PAT)
        assert "organization" not in advice(error, code, PAT)
    if BY_NUMBER[code].verdict is Verdict.BLOCKED and BY_NUMBER[code].advice != "other_account":
        assert "administrator" in advice("blocked_by_admin", code, ANN)


@pytest.mark.parametrize(
    "email",
    [
        PAT,
        "p@hotmail.com",
        "p@live.com",
        "p@msn.com",
        "p@OUTLOOK.FR",
        "p@hotmail.co.uk",
        "p@outlook.com.br",
        "p@live.nl",
    ],
)
def test_a_personal_address_is_known_by_its_domain(email: str) -> None:
    """Only personal accounts have addresses in these domains."""
    assert is_personal(email)


@pytest.mark.parametrize("email", [ANN, "", "p@live.contoso.com", "p@mail.outlook.com", "p@outlook"])
def test_other_addresses_count_as_work_accounts(email: str) -> None:
    """Some of them are personal, but their addresses do not show it."""
    assert not is_personal(email)


def test_the_advice_of_an_error_depends_on_its_reason() -> None:
    """For an unknown reason it depends on the kind of the error."""
    assert "second proof" in NeedsUser(ANN, "AADSTS50076").advice
    assert "grant consent" in BlockedByAdmin(ANN, "AADSTS90094").advice
    assert "allow access" in BlockedByAdmin(PAT, "AADSTS90094").advice
    assert "unlock it" in NeedsUser(PAT, "AADSTS70000").advice
    assert "known devices" in NeedsUser(ANN, "AADSTS530003").advice
    assert NeedsUser(ANN, "AADSTS5099990").advice == SENTENCES["sign_in"]
    assert "does not know your organization" in BlockedByAdmin(ANN, "AADSTS90002").advice
    assert ClientMisconfigured(ANN, "default", "AADSTS90002").advice == SENTENCES["application"]
    assert advice("a code to come") == "Your mailbox cannot be read at the moment."


def test_no_user_is_advised_to_sign_in_while_the_worker_retries() -> None:
    """The reason may be temporary. The advice for a locked account says that it is locked."""
    assert BackingOff(ANN, "AADSTS9002313", MINUTE).advice == SENTENCES["wait"]
    assert BackingOff(ANN, "invalid_grant", MINUTE).advice == SENTENCES["wait"]
    assert BackingOff(ANN, "AADSTS50053", MINUTE).advice == SENTENCES["locked"]
