"""Several app registrations: each has its share, even if another has a backlog, and only workers that know it refresh
it."""

from dataclasses import replace

import pytest
from pydantic import SecretStr

from tests.constants import ANN
from tests.integration.installation import Installation
from worker.bootstrap import Services
from worker.devkit.emulator import Registration
from worker.settings.clients import ClientSettings


@pytest.fixture(name="both")
def _both(installation: Installation) -> Services:
    """A process with a second app registration and batches of two."""
    installation.emulator.registrations.register(Registration(client_id="other-app", secrets=("other",)))
    other = ClientSettings(
        client_id="other-app", client_secret=SecretStr("other"), authority=installation.settings.authority
    )
    return installation.another_process(clients={"other": other}, batch_size=2)


def sign_in_at_other(installation: Installation, both: Services, *emails: str) -> None:
    """The users sign in at the second app registration, and their accounts are due."""
    replace(installation, services=both).sign_in(*emails, due=True, client="other", client_id="other-app")


def test_a_backlog_leaves_other_registrations_their_share(installation: Installation, both: Services) -> None:
    """A million imported accounts of one registration take half an hour.

    The tokens of the other must not expire meanwhile.
    """
    installation.sign_in(*[f"user{number:02}@contoso.com" for number in range(30)], due=True)
    sign_in_at_other(installation, both, "ann@fabrikam.com", "bob@fabrikam.com", "cat@fabrikam.com")

    assert both.refresher.batches_due(limit=6) == ["default", "other", "default", "other", "default", "default"]


def test_registrations_take_turns_if_one_batch_fits_at_a_time(installation: Installation, both: Services) -> None:
    """At a low rate hardly more than one batch is finished between two sweeps."""
    installation.sign_in(*[f"user{number:02}@contoso.com" for number in range(30)], due=True)
    sign_in_at_other(installation, both, "ann@fabrikam.com")

    sent = [both.refresher.batches_due(limit=1) for _sweep in range(4)]

    assert sorted(sent) == [["default"], ["default"], ["other"], ["other"]]


def test_a_batch_of_an_unknown_registration_is_left_to_other_workers(
    installation: Installation, both: Services
) -> None:
    """While workers restart one by one with a new registration, the old ones must not record failures for it."""
    sign_in_at_other(installation, both, ANN)

    assert installation.refresh_due("other") == {"leased": 0}

    account = installation.account(ANN)
    assert (account.failure, account.due_at) == (None, installation.clock())
    assert [entry["client"] for entry in installation.logs if entry["log_level"] == "warning"] == ["other"]
    assert both.refresher.refresh_due("other") == {"leased": 1, "refreshed": 1}
