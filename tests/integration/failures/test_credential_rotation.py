"""Two credentials per app registration: while the secret is rotated, nobody notices."""

import pytest

from tests.factories import TurnedClock
from tests.integration.failures.mailboxes import ANN, BOB, Mailboxes, emails
from worker.bootstrap import Services, bootstrap
from worker.devkit.emulator import Registration, fault_named, oauth_error
from worker.domain.errors import NeedsUser
from worker.settings import Settings

OLD, NEW = "old-secret", "new-secret"


@pytest.fixture(name="settings")
def _settings(settings: Settings) -> Settings:
    """The old secret, and the next one too."""
    return Settings.model_validate(
        settings.model_dump() | {"client_secret": OLD, "next_client_secret": NEW},
    )


def accept(mailboxes: Mailboxes, *secrets: str) -> None:
    mailboxes.emulator.registrations.register(Registration(secrets=secrets))


def refresh(services: Services, email: str) -> int:
    """By hand; the version it leads to."""
    return services.on_demand.refresh_now(services.accounts.find(email).id).version


@pytest.mark.parametrize(("accepted", "questions"), [((OLD,), 1), ((OLD, NEW), 1), ((NEW,), 2)])
def test_the_next_secret_is_tried_only_if_the_current_one_is_refused(
    mailboxes: Mailboxes, accepted: tuple[str, ...], questions: int
) -> None:
    """Before, during and after the change at Microsoft the account is refreshed, with no question too many."""
    mailboxes.sign_in(ANN)
    accept(mailboxes, *accepted)

    assert mailboxes.asked(lambda: refresh(mailboxes.services, ANN)) == questions

    account = mailboxes.account(ANN)
    assert (account.version, account.failure) == (2, None)
    assert mailboxes.stored_refresh_token(ANN) == mailboxes.emulator.newest_refresh_token(ANN)


@pytest.mark.parametrize("code", ["7000215", "7000222"])
def test_wrong_and_expired_both_bring_the_next_one_in(mailboxes: Mailboxes, code: str) -> None:
    """Microsoft says the first for a deleted secret and the second for one whose date has passed."""
    mailboxes.sign_in(ANN)
    accept(mailboxes, OLD, NEW)
    mailboxes.emulator.add_fault(oauth_error(code), times=1)

    assert mailboxes.asked(lambda: refresh(mailboxes.services, ANN)) == 2

    assert mailboxes.account(ANN).failure is None


def test_which_one_works_is_remembered_and_found_out_anew_when_it_changes(
    mailboxes: Mailboxes, rival: Services
) -> None:
    """One question per refresh, except for the first after each change; each process finds out for itself."""
    mailboxes.sign_in(ANN)

    def costs(services: Services, times: int) -> list[int]:
        return [mailboxes.asked(lambda: refresh(services, ANN)) for _ in range(times)]

    accept(mailboxes, NEW)
    assert costs(mailboxes.services, 3) == [2, 1, 1]
    assert costs(rival, 2) == [2, 1]
    accept(mailboxes, OLD)
    assert costs(mailboxes.services, 3) == [2, 1, 1]
    accept(mailboxes, OLD, NEW)
    assert costs(mailboxes.services, 2) == [1, 1]


def test_a_whole_batch_changes_over_without_anybody_failing(mailboxes: Mailboxes) -> None:
    """The old secret expires while sixty are due: those under way ask twice, the others once."""
    mailboxes.sign_in(*emails(60))
    accept(mailboxes, NEW)

    assert mailboxes.refresh_due() == {"claimed": 60, "refreshed": 60}

    assert 61 <= mailboxes.requests <= 60 + mailboxes.settings.connections
    assert mailboxes.query("SELECT count(*) FROM oauth_clients") == [(0,)]
    assert mailboxes.query("SELECT DISTINCT outcome FROM refresh_events") == [("refreshed",)]


def test_both_refused_is_trouble_with_the_app(mailboxes: Mailboxes, rival: Services) -> None:
    """Then, and only then, the breaker opens, after as few questions as with one secret, twice."""
    mailboxes.sign_in(*emails(50))
    mailboxes.refuse_the_secret()

    assert mailboxes.refresh_due()["returned"] >= 50 - mailboxes.handful

    assert mailboxes.requests <= 2 * mailboxes.handful
    assert [breaker.code for breaker in rival.events.breakers()] == ["AADSTS7000215"]
    assert mailboxes.asked(lambda: rival.refresher.refresh_due("default")) == 0
    assert mailboxes.harmed() == []
    accept(mailboxes, NEW)
    mailboxes.clock.advance(seconds=10)
    assert mailboxes.refresh_due() == {"claimed": 1, "refreshed": 1}


def test_what_is_not_about_the_secret_is_not_asked_twice(mailboxes: Mailboxes) -> None:
    """A dead grant, an unknown app, a loop detected, no answer at all: another secret would change none of them."""
    faults = ["50173", "700016", "50196", "html-503", "reset"]
    users = emails(len(faults))
    mailboxes.sign_in(*users)
    accept(mailboxes, OLD, NEW)
    for email, fault in zip(users, faults, strict=True):
        mailboxes.emulator.add_fault(fault_named(fault), email)

    assert mailboxes.asked(mailboxes.refresh_due) == len(faults)


def test_a_dead_grant_found_with_the_next_secret_is_told_as_such(mailboxes: Mailboxes) -> None:
    """The second answer is the one that counts: it is the only one about the account."""
    mailboxes.sign_in(ANN, BOB)
    accept(mailboxes, NEW)
    mailboxes.emulator.revoke(ANN)

    assert mailboxes.refresh_due() == {"claimed": 2, "refreshed": 1, "reauth_required": 1}

    with pytest.raises(NeedsUser, match="AADSTS50173"):
        mailboxes.services.tokens.get(ANN)
    assert mailboxes.query("SELECT count(*) FROM oauth_clients") == [(0,)]


def test_a_restart_with_the_next_secret_moved_is_no_event(
    mailboxes: Mailboxes, settings: Settings, clock: TurnedClock
) -> None:
    """The last step of the rotation: NEXT becomes the secret, and there is no next one."""
    mailboxes.sign_in(ANN)
    accept(mailboxes, NEW)
    refresh(mailboxes.services, ANN)
    moved = Settings.model_validate(settings.model_dump() | {"client_secret": NEW, "next_client_secret": None})

    restarted = bootstrap(moved, utcnow=clock)

    assert mailboxes.asked(lambda: refresh(restarted, ANN)) == 1
    restarted.close()
