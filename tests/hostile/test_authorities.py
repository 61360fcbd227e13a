"""An authority is a host and a path, and both mean the same to every program that reads them."""

import json
from dataclasses import replace

import pytest

from tests.constants import ANN, BOB
from tests.integration.earlier import unbind
from tests.integration.imports import import_lines
from tests.integration.installation import Installation
from tests.unit.settings.conftest import _environment
from tests.unit.settings.environment import FABRIKAM, Environment, complaint, put
from worker.domain.account import Status
from worker.domain.errors import InvalidInput

__all__ = ["_environment"]

#: ``{}`` is the host of the app registration.
HOSTILE = {
    "a dot": "https://{}/./evil",
    "two dots": "https://{}/contoso.com/../evil",
    "two dots alone": "https://{}/..",
    "two dots at the end": "https://{}/contoso.com/..",
    "an empty segment": "https://{}//evil.example/x",
    "an empty segment inside": "https://{}/contoso.com//x",
    "empty segments at the end": "https://{}/contoso.com//",
    "an encoded slash": "https://{}/contoso.com%2Fevil",
    "an encoded backslash": "https://{}/contoso.com%5cevil",
    "encoded dots": "https://{}/%2e%2e/evil",
    "an encoded end of line": "https://{}/contoso.com%0d%0aevil",
    "a backslash": "https://{}/contoso.com\\evil",
    "a user name": "https://evil@{}/contoso.com",
    "a user name and a password": "https://evil.example:443@{}/contoso.com",
    "a query": "https://{}/contoso.com?evil=1",
    "an empty query": "https://{}/contoso.com?",
    "a fragment": "https://{}/contoso.com#evil",
    "an empty fragment": "https://{}/contoso.com#",
    "a port in the path": "https://{}/:80/x",
    "parameters": "https://{}/contoso.com;evil",
    "a user name in the path": "https://{}/evil@contoso.com",
    "another scheme": "http://{}/contoso.com",
    "no scheme": "//{}/contoso.com",
    "nothing": "",
}
KEPT = ["https://{}/contoso.com", "https://{}/tfp/contoso.onmicrosoft.com/B2C_1A_signin", "https://{}/realms/a-b_c~d/"]


def on(installation: Installation, url: str) -> str:
    return url.format(installation.settings.authority.split("/")[2])


@pytest.mark.parametrize("url", HOSTILE.values(), ids=HOSTILE)
def test_save_and_import_refuse_it(installation: Installation, url: str) -> None:
    authority = on(installation, url)
    line = json.dumps({"email": ANN, "refresh_token": "r", "authority": authority or " "})

    stored, [bad] = import_lines(installation.services.accounts, line)
    with pytest.raises(InvalidInput, match=r"^the authority ") as refusal:
        installation.services.accounts.save([replace(installation.grant(ANN), authority=authority)])

    assert stored == 0
    assert bad.reason.startswith("the authority ")
    assert "evil" not in bad.reason + str(refusal.value)
    assert installation.accounts() == []


@pytest.mark.parametrize("url", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ["WORKER_AUTHORITY", "WORKER_OIDC_AUTHORITY", "WORKER_CLIENTS__FABRIKAM__AUTHORITY"])
def test_the_settings_refuse_it(environment: Environment, name: str, url: str) -> None:
    put(environment, FABRIKAM)
    environment.setenv(name, url.format("login.example"))

    assert complaint().startswith(f"{name} must be an https URL")


@pytest.mark.parametrize("url", KEPT)
def test_a_tenant_is_accepted(installation: Installation, url: str) -> None:
    installation.services.accounts.save([replace(installation.grant(ANN), authority=on(installation, url))])
    assert installation.account().authority == on(installation, url)


@pytest.mark.parametrize("url", [url for url in HOSTILE.values() if url])
def test_a_row_with_it_costs_its_account_only(installation: Installation, url: str) -> None:
    """An earlier version has stored it. No request is sent for it."""
    installation.sign_in(ANN, BOB, due=True)
    unbind(installation, ANN, change=f"authority = '{on(installation, url).replace(':', chr(92) + ':')}'")

    tally = installation.refresh_due()

    assert (tally["leased"], tally["refreshed"], installation.requests) == (2, 1, 1)
    account = installation.account()
    assert account.status is Status.ACTIVE
    assert account.failure
    assert account.failure.code == "authority_refused"
