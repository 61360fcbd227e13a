"""Two credentials per app registration: while the secret is rotated, nobody notices."""

import pytest

from tests.constants import ANN, BOB
from tests.factories import emails
from tests.integration.installation import Installation
from worker.bootstrap import Services
from worker.devkit.emulator import Registration, fault_named, oauth_error
from worker.domain.errors import NeedsUser
from worker.settings import Settings
from worker.vault import Purpose

OLD, NEW = "old-secret", "new-secret"


@pytest.fixture(name="settings")
def _settings(settings: Settings) -> Settings:
    """The old secret, and the next one too."""
    return Settings.model_validate(
        settings.model_dump() | {"client_secret": OLD, "next_client_secret": NEW},
    )


def accept(installation: Installation, *secrets: str) -> None:
    installation.emulator.registrations.register(Registration(secrets=secrets))


def refresh(services: Services, email: str) -> int:
    """By hand; the version it leads to."""
    return services.on_demand.refresh_now(services.accounts.find(email).id).version


@pytest.mark.parametrize(("accepted", "questions"), [((OLD,), 1), ((OLD, NEW), 1), ((NEW,), 2)])
def test_the_next_secret_is_tried_only_if_the_current_one_is_refused(
    installation: Installation, accepted: tuple[str, ...], questions: int
) -> None:
    """Before, during and after the change at Microsoft the account is refreshed, with no question too many."""
    installation.sign_in(ANN, due=True)
    accept(installation, *accepted)

    assert installation.requests_during(lambda: refresh(installation.services, ANN)) == questions

    account = installation.account(ANN)
    assert (account.version, account.failure) == (2, None)
    assert installation.stored_secret(Purpose.REFRESH_TOKEN, ANN) == installation.emulator.newest_refresh_token(ANN)


@pytest.mark.parametrize("code", ["7000215", "7000222"])
def test_wrong_and_expired_both_bring_the_next_one_in(installation: Installation, code: str) -> None:
    """Microsoft says the first for a deleted secret and the second for one whose date has passed."""
    installation.sign_in(ANN, due=True)
    accept(installation, OLD, NEW)
    installation.emulator.add_fault(oauth_error(code), times=1)

    assert installation.requests_during(lambda: refresh(installation.services, ANN)) == 2

    assert installation.account(ANN).failure is None


def test_the_accepted_secret_is_remembered_until_it_changes(
    installation: Installation, other_process: Services
) -> None:
    """One question per refresh, except for the first after each change; each process finds out for itself."""
    installation.sign_in(ANN, due=True)

    def costs(services: Services, times: int) -> list[int]:
        return [installation.requests_during(lambda: refresh(services, ANN)) for _ in range(times)]

    accept(installation, NEW)
    assert costs(installation.services, 3) == [2, 1, 1]
    assert costs(other_process, 2) == [2, 1]
    accept(installation, OLD)
    assert costs(installation.services, 3) == [2, 1, 1]
    accept(installation, OLD, NEW)
    assert costs(installation.services, 2) == [1, 1]


def test_a_whole_batch_changes_over_without_a_failure(installation: Installation) -> None:
    """The old secret expires while sixty are due: those under way ask twice, the others once."""
    installation.sign_in(*emails(60), due=True)
    accept(installation, NEW)

    assert installation.refresh_due() == {"claimed": 60, "refreshed": 60}

    assert 61 <= installation.requests <= 60 + installation.settings.connections
    assert installation.query("SELECT count(*) FROM oauth_clients") == [(0,)]
    assert installation.query("SELECT DISTINCT outcome FROM refresh_events") == [("refreshed",)]


def test_both_refused_is_trouble_with_the_app(installation: Installation, other_process: Services) -> None:
    """Then, and only then, the breaker opens, after as few questions as with one secret, twice."""
    installation.sign_in(*emails(50), due=True)
    installation.reject_secret()

    assert installation.refresh_due()["returned"] >= 50 - installation.requests_until_open

    assert installation.requests <= 2 * installation.requests_until_open
    assert [breaker.code for breaker in other_process.events.breakers()] == ["AADSTS7000215"]
    assert installation.requests_during(other_process.refresher.refresh_due) == 0
    assert installation.blamed_accounts() == []
    accept(installation, NEW)
    installation.clock.advance(seconds=10)
    assert installation.refresh_due() == {"claimed": 1, "refreshed": 1}


def test_a_failure_that_is_not_about_the_secret_is_requested_once(installation: Installation) -> None:
    """A dead grant, an unknown app, a loop detected, no answer at all: another secret would change none of them."""
    faults = ["50173", "700016", "50196", "html-503", "reset"]
    users = emails(len(faults))
    installation.sign_in(*users, due=True)
    accept(installation, OLD, NEW)
    for email, fault in zip(users, faults, strict=True):
        installation.emulator.add_fault(fault_named(fault), email)

    assert installation.requests_during(installation.refresh_due) == len(faults)


def test_a_dead_grant_found_with_the_next_secret_is_reported_as_such(installation: Installation) -> None:
    """The second answer is the one that counts: it is the only one about the account."""
    installation.sign_in(ANN, BOB, due=True)
    accept(installation, NEW)
    installation.emulator.revoke(ANN)

    assert installation.refresh_due() == {"claimed": 2, "refreshed": 1, "reauth_required": 1}

    with pytest.raises(NeedsUser, match="AADSTS50173"):
        installation.services.tokens.get(ANN)
    assert installation.query("SELECT count(*) FROM oauth_clients") == [(0,)]


def test_a_restart_with_the_next_secret_moved_is_no_event(installation: Installation) -> None:
    """The last step of the rotation: NEXT becomes the secret, and there is no next one."""
    installation.sign_in(ANN, due=True)
    accept(installation, NEW)
    refresh(installation.services, ANN)

    restarted = installation.another_process(client_secret=NEW, next_client_secret=None)

    assert installation.requests_during(lambda: refresh(restarted, ANN)) == 1
