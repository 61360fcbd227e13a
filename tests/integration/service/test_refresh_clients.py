"""Several app registrations: each has its turn, whoever has a backlog, and is refreshed by those who know it."""

import pytest
from pydantic import SecretStr

from tests.integration.service.house import ANN, House
from worker.bootstrap import Services
from worker.devkit.emulator import Registration
from worker.domain.account import Grant
from worker.domain.secret import Secret
from worker.settings.clients import ClientSettings


@pytest.fixture(name="both")
def _both(house: House) -> Services:
    """A process with another app registration beside the default one, and batches of two."""
    house.emulator.registrations.register(Registration(client_id="other-app", secrets=("other",)))
    other = ClientSettings(client_id="other-app", client_secret=SecretStr("other"), authority=house.settings.authority)
    return house.another(clients={"other": other}, batch_size=2)


def enrol_at_other(house: House, both: Services, *emails: str) -> None:
    granted = [house.emulator.enrol(email, client_id="other-app") for email in emails]
    both.accounts.save(
        [Grant(email=each.email, refresh_token=Secret(each.refresh_token), client="other") for each in granted]
    )


def test_a_backlog_leaves_the_others_their_share(house: House, both: Services) -> None:
    """A million imported accounts of one wait for half an hour; the other's tokens must not end meanwhile."""
    house.enrol(*[f"user{number:02}@contoso.com" for number in range(30)])
    enrol_at_other(house, both, "ann@fabrikam.com", "bob@fabrikam.com", "cat@fabrikam.com")

    assert both.refresher.batches_due(at_most=6) == ["default", "other", "default", "other", "default", "default"]


def test_where_one_batch_fits_at_a_time_they_take_turns(house: House, both: Services) -> None:
    """At a low rate hardly more than one batch is worked off from sweep to sweep."""
    house.enrol(*[f"user{number:02}@contoso.com" for number in range(30)])
    enrol_at_other(house, both, "ann@fabrikam.com")

    sent = [both.refresher.batches_due(at_most=1) for _sweep in range(4)]

    assert sorted(sent) == [["default"], ["default"], ["other"], ["other"]]


def test_a_batch_of_strangers_is_left_to_those_who_know_them(house: House, both: Services) -> None:
    """As while workers are restarted one by one with a new registration: the old ones must not note failures for it."""
    enrol_at_other(house, both, ANN)

    assert house.services.refresher.refresh_due("other") == {"claimed": 0}

    account = house.account(ANN)
    assert (account.failure, account.due_at) == (None, house.clock())
    assert [entry["client"] for entry in house.logs if entry["log_level"] == "warning"] == ["other"]
    assert both.refresher.refresh_due("other") == {"claimed": 1, "refreshed": 1}
