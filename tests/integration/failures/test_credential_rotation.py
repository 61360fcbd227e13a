"""Two credentials per app registration keep all refreshes going while the secret is rotated."""

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
    """The old secret and the next one."""
    return Settings.model_validate(
        settings.model_dump() | {"client_secret": OLD, "next_client_secret": NEW},
    )


def accept(installation: Installation, *secrets: str) -> None:
    installation.emulator.registrations.register(Registration(secrets=secrets))


def refresh(services: Services, email: str) -> int:
    """Refresh by hand and return the new version."""
    return services.on_demand.refresh_now(services.accounts.find(email).id).version


@pytest.mark.parametrize(("accepted", "requests"), [((OLD,), 1), ((OLD, NEW), 1), ((NEW,), 2)])
def test_the_next_secret_is_tried_only_if_the_current_one_is_refused(
    installation: Installation, accepted: tuple[str, ...], requests: int
) -> None:
    """Before, during and after the change at Microsoft the account is refreshed without a needless request."""
    installation.sign_in(ANN, due=True)
    accept(installation, *accepted)

    assert installation.requests_during(lambda: refresh(installation.services, ANN)) == requests

    account = installation.account(ANN)
    assert (account.version, account.failure) == (2, None)
    assert installation.stored_secret(Purpose.REFRESH_TOKEN, ANN) == installation.emulator.newest_refresh_token(ANN)


@pytest.mark.parametrize("code", ["7000215", "7000222"])
def test_a_wrong_and_an_expired_secret_both_lead_to_the_next_one(installation: Installation, code: str) -> None:
    """Microsoft reports the first for a deleted secret and the second for an expired one."""
    installation.sign_in(ANN, due=True)
    accept(installation, OLD, NEW)
    installation.emulator.add_fault(oauth_error(code), times=1)

    assert installation.requests_during(lambda: refresh(installation.services, ANN)) == 2

    assert installation.account(ANN).failure is None


def test_the_accepted_secret_is_remembered_until_it_changes(
    installation: Installation, other_process: Services
) -> None:
    """A refresh costs one request, except for the first after each change. Each process learns it by itself."""
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


def test_a_whole_batch_changes_to_the_next_secret_without_a_failure(installation: Installation) -> None:
    """The old secret expires while sixty accounts are due. Requests in flight are sent twice, the others once."""
    installation.sign_in(*emails(60), due=True)
    accept(installation, NEW)

    assert installation.refresh_due() == {"leased": 60, "refreshed": 60}

    assert 61 <= installation.requests <= 60 + installation.settings.connections
    assert installation.query("SELECT count(*) FROM oauth_clients") == [(0,)]
    assert installation.query("SELECT outcome FROM refresh_events") == []


def test_two_refused_secrets_open_the_breaker(installation: Installation, other_process: Services) -> None:
    """Only then the breaker opens, after as many requests as with one secret, each sent twice."""
    installation.sign_in(*emails(50), due=True)
    installation.reject_secret()

    assert installation.refresh_due()["returned"] >= 50 - installation.requests_until_open

    assert installation.requests <= 2 * installation.requests_until_open
    assert [breaker.code for breaker in other_process.events.breakers()] == ["AADSTS7000215"]
    assert installation.requests_during(other_process.refresher.refresh_due) == 0
    assert installation.blamed_accounts() == []
    accept(installation, NEW)
    installation.clock.advance(seconds=10)
    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}


def test_a_failure_that_is_not_about_the_secret_is_requested_once(installation: Installation) -> None:
    """A dead grant, an unknown app, a detected loop or a missing response would be the same with another secret."""
    faults = ["50173", "700016", "50196", "html-503", "reset"]
    users = emails(len(faults))
    installation.sign_in(*users, due=True)
    accept(installation, OLD, NEW)
    for email, fault in zip(users, faults, strict=True):
        installation.emulator.add_fault(fault_named(fault), email)

    assert installation.requests_during(installation.refresh_due) == len(faults)


def test_a_dead_grant_is_reported_with_the_next_secret(installation: Installation) -> None:
    """The second response counts, because only it is about the account."""
    installation.sign_in(ANN, BOB, due=True)
    accept(installation, NEW)
    installation.emulator.revoke(ANN)

    assert installation.refresh_due() == {"leased": 2, "refreshed": 1, "reauth_required": 1}

    with pytest.raises(NeedsUser, match="AADSTS50173"):
        installation.services.tokens.get(ANN)
    assert installation.query("SELECT count(*) FROM oauth_clients") == [(0,)]


def test_a_restart_with_the_next_secret_moved_costs_nothing(installation: Installation) -> None:
    """The last step of the rotation: NEXT becomes the secret, and there is no next one."""
    installation.sign_in(ANN, due=True)
    accept(installation, NEW)
    refresh(installation.services, ANN)

    restarted = installation.another_process(client_secret=NEW, next_client_secret=None)

    assert installation.requests_during(lambda: refresh(restarted, ANN)) == 1
