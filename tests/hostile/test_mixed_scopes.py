"""Scopes of two resources are refused wherever they are set. Otherwise the mail server refuses each token."""

import json

import pytest

from tests.constants import ANN, BOB
from tests.integration.earlier import unbind
from tests.integration.imports import import_lines
from tests.integration.installation import Installation
from tests.unit.domain.test_scopes import IMAP
from tests.unit.settings.conftest import _environment
from tests.unit.settings.environment import FABRIKAM, Environment, complaint, put
from worker.client import TokenClient
from worker.domain.account import Grant, Status
from worker.domain.errors import InvalidInput
from worker.domain.token import Secret

__all__ = ["_environment"]

MIXED = f"{IMAP} https://graph.microsoft.com/Mail.Read"
REFUSAL = (
    "must be of one resource, not of https://outlook.office.com and https://graph.microsoft.com;"
    " Microsoft issues a token for one resource only"
)


@pytest.mark.parametrize("name", ["WORKER_SCOPES", "WORKER_CLIENTS__FABRIKAM__SCOPES"])
def test_the_settings_refuse_them(environment: Environment, name: str) -> None:
    put(environment, FABRIKAM)
    environment.setenv(name, MIXED.replace(" ", ","))

    assert complaint() == f"{name} {REFUSAL}"


def test_save_and_import_refuse_them(installation: Installation) -> None:
    accounts = installation.services.accounts
    line = {"email": ANN, "refresh_token": "r", "scopes": MIXED}

    stored, [bad] = import_lines(accounts, json.dumps(line), json.dumps({**line, "email": BOB, "scopes": IMAP}))
    assert (stored, bad.number, bad.reason) == (1, 1, f"scopes {REFUSAL}")
    with pytest.raises(InvalidInput, match=f"^scopes {REFUSAL}$"):
        accounts.save([Grant(email=ANN, refresh_token=Secret("r"), scopes=tuple(MIXED.split()))])
    with TokenClient(installation.settings) as client, pytest.raises(InvalidInput, match=REFUSAL):
        client.save(ANN, refresh_token="r", scopes=tuple(MIXED.split()))

    assert [account.email for account in installation.accounts()] == [BOB]


def test_scopes_that_an_earlier_version_has_stored_cost_one_account_only(installation: Installation) -> None:
    """Microsoft answers AADSTS28000. The refresh token is not spent, and the breaker stays closed."""
    installation.sign_in(ANN, BOB, due=True)
    unbind(installation, ANN, change=f"scopes = '{MIXED}'")

    assert installation.refresh_due() == {"leased": 2, "misconfigured": 1, "refreshed": 1}

    account = installation.account(ANN)
    assert account.status is Status.ACTIVE
    assert account.failure
    assert account.failure.code == "AADSTS28000"
    assert installation.breaker_rows() == []
