"""No address is mistaken for another one: neither by Python's lower case, nor by Postgres', nor by a reader's eyes."""

import json
import sys
import unicodedata

import pytest

from tests.constants import ANN, BOB
from tests.e2e.conftest import _commands, _deployment, _server
from tests.e2e.deployment import Deployment
from tests.integration.earlier import unbind
from tests.integration.imports import import_lines
from tests.integration.installation import Installation
from worker.client import TokenClient
from worker.domain.account import Grant, normalize_email
from worker.domain.errors import InvalidInput
from worker.domain.token import Secret

__all__ = ["_commands", "_deployment", "_server"]

MIKE = "mike@contoso.com"
REFUSED = {
    "kelvin sign": "mi\u212ae@contoso.com",
    "dotted capital i": "m\u0130ke@contoso.com",
    "long s": "\u017fam@contoso.com",
    "angstrom sign": "\u212bke@contoso.com",
    "ligature": "\ufb01n@contoso.com",
    "fullwidth letter": "m\uff49ke@contoso.com",
    "combining ring": "a\u030ake@contoso.com",
    "superscript": "mike\u00b2@contoso.com",
    "C1 control": "mi\u009bke@contoso.com",
    "soft hyphen": "mi\u00adke@contoso.com",
    "zero width space": "mi\u200bke@contoso.com",
    "right-to-left override": "mike\u202e@contoso.com",
    "byte order mark": "mike@contoso\ufeff.com",
    "private use": "mike@\ue000.com",
    "unassigned": "mike@\U0003fffd.com",
}
ACCEPTED = {
    "sharp s": ("stra\u00dfe@contoso.com", "stra\u00dfe@contoso.com"),
    "capital sharp s": ("STRA\u1e9eE@contoso.com", "stra\u00dfe@contoso.com"),
    "dotless i": ("m\u0131ke@contoso.com", "m\u0131ke@contoso.com"),
    "composed ring": ("\u00c5KE@contoso.com", "\u00e5ke@contoso.com"),
    "Greek": ("\u039d\u0399\u039a\u039f\u03a3@contoso.com", "\u03bd\u03b9\u03ba\u03bf\u03c2@contoso.com"),
    "Georgian capitals": ("\u1c90@contoso.com", "\u10d0@contoso.com"),
    "Chinese": ("\u5c0f\u660e@contoso.com", "\u5c0f\u660e@contoso.com"),
    "markup": ("[/X]@evil.example", "[/x]@evil.example"),
}


@pytest.mark.parametrize("address", REFUSED.values(), ids=REFUSED)
def test_an_ambiguous_address_is_refused_at_every_door(installation: Installation, address: str) -> None:
    """The error does not repeat it, because it would look like another address there, too."""
    installation.sign_in(MIKE)
    before, manager = installation.account(MIKE), installation.services.accounts
    line = json.dumps({"email": address, "refresh_token": "theirs"})

    stored, [bad] = import_lines(manager, line)
    assert (stored, bad.reason) == (0, "email is not an e-mail address")
    with TokenClient(installation.settings, utcnow=installation.clock) as client:
        for use in (
            lambda: manager.save([Grant(email=address, refresh_token=Secret("theirs"))]),
            lambda: manager.find(address),
            lambda: client.save(address, refresh_token="theirs"),
            lambda: client.get(address),
            lambda: client.load(address),
            lambda: client.report_rejected(address, 1),
        ):
            with pytest.raises(InvalidInput, match="not an e-mail address") as refusal:
                use()
            assert str(refusal.value).isascii()
        answers = client.get_many([address, MIKE])

    assert isinstance(answers[address], InvalidInput)
    assert installation.accounts() == [before]


@pytest.mark.parametrize(("given", "stored"), ACCEPTED.values(), ids=ACCEPTED)
def test_other_letters_have_one_spelling(installation: Installation, given: str, stored: str) -> None:
    installation.services.accounts.save([Grant(email=given, refresh_token=Secret("r"))])

    assert [account.email for account in installation.accounts()] == [stored]
    assert installation.account(given) == installation.account(stored)


def test_postgres_agrees_about_every_character(installation: Installation) -> None:
    """Its lower() changes no stored address, and makes the same of a given one as Python does."""
    given = [address for code in range(0x80, sys.maxunicode + 1) if is_accepted(address := f"{chr(code)}@x")]
    stored = [normalize_email(address) for address in given]

    differing = installation.query(
        "SELECT given FROM unnest(CAST(:given AS text[]), CAST(:stored AS text[])) AS each (given, stored)"
        " WHERE lower(given) <> stored OR lower(stored) <> stored",
        given=given,
        stored=stored,
    )

    assert len(given) > 100_000
    assert differing == []
    assert not [address for address in stored if not unicodedata.is_normalized("NFKC", address)]


def is_accepted(address: str) -> bool:
    try:
        normalize_email(address)
    except InvalidInput:
        return False
    return True


@pytest.mark.parametrize("command", ["show", "pause", "connect", "token"])
def test_a_command_answers_with_one_sentence(deployment: Deployment, command: str) -> None:
    answer = deployment.cli(command, REFUSED["kelvin sign"])

    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.splitlines()[-1].startswith("Error: not an e-mail address: it has")
    assert answer.stderr.isascii()


def test_an_account_of_an_earlier_version_stays_alive(installation: Installation) -> None:
    """It is refreshed and listed, under an address that no caller can give any more."""
    installation.sign_in(ANN, BOB, due=True)
    unbind(installation, ANN, change="email = E'csi\\u009b@x.y'")

    assert installation.refresh_due() == {"leased": 2, "refreshed": 2}
    assert [account.email for account in installation.accounts()] == [BOB, "csi\u009b@x.y"]
