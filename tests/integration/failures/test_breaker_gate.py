"""One app registration in trouble, two processes: few questions, no account blamed, and nobody signs in again."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import pytest
from pydantic import SecretStr

from tests.factories import NOW, TurnedClock
from tests.integration.failures.mailboxes import Mailboxes, emails
from worker.bootstrap import Services, bootstrap
from worker.devkit.emulator import EmulatorServer, Registration, fault_named, oauth_error
from worker.domain.account import Status
from worker.domain.errors import BackingOff, WorkerError
from worker.settings import Settings
from worker.settings.clients import ClientSettings

MINUTE = timedelta(minutes=1)
NONE = {"claimed": 0}


def test_a_refused_secret_costs_a_handful_of_questions_and_harms_nobody(
    mailboxes: Mailboxes, rival: Services, fifty: list[str]
) -> None:
    """The secret has expired: that is no news about any mailbox, and fifty requests would not make it better."""
    mailboxes.refuse_the_secret()

    tally = mailboxes.refresh_due()

    asked = mailboxes.requests
    assert 3 <= asked <= mailboxes.handful
    assert tally == {"claimed": 50, "misconfigured": asked, "returned": 50 - asked}
    assert mailboxes.harmed() == []
    assert {account.version for account in mailboxes.accounts()} == {1}
    unasked = [account for account in mailboxes.accounts() if account.failure is None]
    assert [account.due_at for account in unasked] == [NOW] * (50 - asked)
    assert mailboxes.breakers() == [(1, "AADSTS7000215", NOW + timedelta(seconds=10))]
    assert rival.refresher.refresh_due("default") == NONE
    assert rival.refresher.batches_due(at_most=64) == []
    assert mailboxes.requests == asked


def test_one_canary_goes_per_interval_however_many_ask(mailboxes: Mailboxes, rival: Services, fifty: list[str]) -> None:
    """Two processes and a crowd of consumers: one of them finds out, and the wait doubles."""
    mailboxes.refuse_the_secret()
    mailboxes.refresh_due()

    def read(number: int) -> None:
        with suppress(WorkerError):
            (rival, mailboxes.services)[number % 2].tokens.get(fifty[number])

    def sweep(number: int) -> None:
        (rival, mailboxes.services)[number % 2].refresher.refresh_due("default")

    def crowd() -> None:
        with ThreadPoolExecutor(12) as pool:
            for done in [pool.submit((read, sweep)[number % 3 == 0], number) for number in range(24)]:
                done.result()

    canaries = []
    for wait in (10, 19, 1, 39, 1):
        mailboxes.clock.advance(seconds=wait)
        canaries.append(mailboxes.asked(crowd))

    assert canaries == [1, 0, 1, 0, 1]
    assert mailboxes.breakers() == [(4, "AADSTS7000215", mailboxes.clock.now + timedelta(seconds=80))]
    assert mailboxes.harmed() == []


def test_once_the_secret_is_right_the_canary_closes_the_breaker_and_a_ramp_brings_all_back(
    mailboxes: Mailboxes, rival: Services, fifty: list[str]
) -> None:
    """One, ten, twenty, the rest: and every mailbox has a token again, without its user."""
    mailboxes.refuse_the_secret()
    mailboxes.refresh_due()
    mailboxes.take_the_secret()

    mailboxes.clock.advance(seconds=10)
    steps = [mailboxes.asked(mailboxes.refresh_due) for _ in range(2)]
    assert rival.refresher.batches_due(at_most=64) == ["default"]
    for _ in range(2):
        mailboxes.clock.advance(seconds=5)
        steps.append(mailboxes.asked(lambda: rival.refresher.refresh_due("default")))

    assert steps == [1, 10, 20, 19]
    assert {account.version for account in mailboxes.accounts()} == {2}
    assert not any(account.failure for account in mailboxes.accounts())
    assert mailboxes.harmed() == []
    assert mailboxes.breakers() == [(0, None, None)]


def test_nobody_asks_before_retry_after_is_over(mailboxes: Mailboxes, rival: Services, fifty: list[str]) -> None:
    """Microsoft says 60 s to a few; it means all workers and all consumers."""
    mailboxes.emulator.add_fault(fault_named("throttled"))
    assert mailboxes.refresh_due()["returned"] >= 50 - mailboxes.handful
    mailboxes.emulator.clear_faults()

    def everybody() -> None:
        for services in (mailboxes.services, rival):
            services.refresher.refresh_due("default")
            with pytest.raises(BackingOff):
                services.tokens.get(fifty[-1])

    mailboxes.clock.advance(seconds=59.9)
    assert mailboxes.asked(everybody) == 0
    mailboxes.clock.advance(seconds=0.1)
    assert mailboxes.asked(mailboxes.refresh_due) == 1
    for _ in range(4):
        mailboxes.clock.advance(seconds=5)
        rival.refresher.refresh_due("default")
    assert {account.version for account in mailboxes.accounts()} == {2}
    assert mailboxes.harmed() == []


def test_a_storm_of_5xx_costs_a_canary_now_and_then(mailboxes: Mailboxes, rival: Services, fifty: list[str]) -> None:
    """Five minutes of 503 and a sweep of each process every five seconds: waits of 10, 20, 40, 80 and 160 s, then it
    is over."""
    mailboxes.emulator.add_fault(fault_named("html-503"))
    assert mailboxes.asked(mailboxes.refresh_due) <= mailboxes.handful

    def storm() -> None:
        for _ in range(60):
            mailboxes.clock.advance(seconds=5)
            mailboxes.refresh_due()
            rival.refresher.refresh_due("default")

    assert mailboxes.asked(storm) == 4
    assert mailboxes.breakers() == [(5, "http_503", NOW + timedelta(seconds=310))]
    assert mailboxes.harmed() == []
    mailboxes.emulator.clear_faults()
    mailboxes.clock.advance(seconds=10)
    for _ in range(5):
        mailboxes.refresh_due()
        mailboxes.clock.advance(seconds=5)
    assert {account.version for account in mailboxes.accounts()} == {2}


def test_loops_detected_never_open_it(mailboxes: Mailboxes, fifty: list[str]) -> None:
    """AADSTS50196 arrives as invalid_grant and is about one account's questions: the others go on."""
    for email in fifty[:40]:
        mailboxes.emulator.add_fault(oauth_error("50196"), email)

    assert mailboxes.refresh_due() == {"claimed": 50, "throttled": 40, "refreshed": 10}

    assert mailboxes.breakers() == []
    assert mailboxes.harmed() == []


def test_a_tenant_that_is_gone_does_not_stop_the_others(mailboxes: Mailboxes, fifty: list[str]) -> None:
    """AADSTS90002 is about one customer, who has left; every other tenant is refreshed in the same batch."""
    gone = emails(30, "gone.example")
    mailboxes.sign_in(*gone)
    for email in gone:
        mailboxes.emulator.add_fault(oauth_error("90002"), email)

    assert mailboxes.refresh_due() == {"claimed": 80, "misconfigured": 30, "refreshed": 50}

    assert mailboxes.breakers() == []
    assert mailboxes.harmed() == []


def test_another_app_registration_goes_on(mailboxes: Mailboxes, settings: Settings, server: EmulatorServer) -> None:
    """Each has its own secret, its own limits at Microsoft, and its own breaker."""
    mailboxes.emulator.registrations.register(Registration(client_id="other-app", secrets=("other",)))
    other = ClientSettings(client_id="other-app", client_secret=SecretStr("other"), authority=server.authority)
    services = bootstrap(settings.model_copy(update={"clients": {"other": other}}), utcnow=mailboxes.clock)
    both = Mailboxes(services=services, emulator=mailboxes.emulator, clock=mailboxes.clock, settings=settings)
    both.sign_in(*emails(20))
    both.sign_in(*emails(20, "fabrikam.com"), client="other", client_id="other-app")
    both.refuse_the_secret()

    assert both.refresh_due()["returned"] > 0
    assert services.refresher.batches_due(at_most=64) == ["other"]
    assert both.refresh_due("other") == {"claimed": 20, "refreshed": 20}
    assert [(breaker.client, breaker.failures) for breaker in services.events.breakers()] == [("default", 1)]
    services.close()


@pytest.fixture(name="cut_off")
def _cut_off(settings: Settings, clock: TurnedClock) -> Iterator[Services]:
    """A process on a machine without a way to Microsoft."""
    services = bootstrap(settings.model_copy(update={"authority": "https://localhost:9/common"}), utcnow=clock)
    yield services
    services.close()


def test_a_machine_without_a_network_stops_itself_and_nobody_else(
    mailboxes: Mailboxes, cut_off: Services, fifty: list[str]
) -> None:
    """Nothing is known about the app registration; the others must not wait for this machine's cable."""
    tally = cut_off.refresher.refresh_due("default")

    assert 3 <= tally["transient"] <= mailboxes.handful
    assert tally["returned"] == 50 - tally["transient"]
    assert cut_off.refresher.refresh_due("default") == NONE
    with pytest.raises(BackingOff, match="connect_failed") as caught:
        cut_off.tokens.get(fifty[-1])
    assert caught.value.retry_after == timedelta(seconds=10)
    assert mailboxes.breakers() == []
    assert mailboxes.harmed() == []

    assert mailboxes.refresh_due() == {"claimed": tally["returned"], "refreshed": tally["returned"]}


def test_a_canary_that_finds_no_way_to_microsoft_is_given_back(
    mailboxes: Mailboxes, cut_off: Services, fifty: list[str]
) -> None:
    """A cut-off machine that is the first to try must not bar the others for a minute."""
    mailboxes.refuse_the_secret()
    mailboxes.refresh_due()
    mailboxes.take_the_secret()
    mailboxes.clock.advance(seconds=10)

    assert cut_off.refresher.refresh_due("default") == {"claimed": 1, "transient": 1}

    assert mailboxes.refresh_due() == {"claimed": 1, "refreshed": 1}


def test_a_canary_that_is_not_sent_is_given_back(mailboxes: Mailboxes, rival: Services, fifty: list[str]) -> None:
    """Nothing was due, or the account was taken: whoever has a question next may ask it at once."""
    mailboxes.refuse_the_secret()
    mailboxes.refresh_due()
    mailboxes.take_the_secret()
    mailboxes.clock.advance(seconds=10)
    mailboxes.query(
        "UPDATE mail_credentials SET lease_id = gen_random_uuid(), lease_until = :until",
        until=mailboxes.clock() + timedelta(hours=1),
    )

    assert mailboxes.refresh_due() == NONE
    assert mailboxes.services.refresher.batches_due(at_most=64) == []
    mailboxes.query("UPDATE mail_credentials SET lease_id = NULL")

    assert rival.tokens.get(fifty[0]).version == 2


def test_a_sender_that_dies_with_its_canary_bars_the_others_for_a_minute(
    mailboxes: Mailboxes, rival: Services, fifty: list[str]
) -> None:
    """A lease, as everywhere: no canary may be out for ever."""
    mailboxes.refuse_the_secret()
    mailboxes.refresh_due()
    mailboxes.clock.advance(seconds=10)
    mailboxes.query("UPDATE oauth_clients SET open_until = open_until + interval '60 s'")  # and is never heard of again

    mailboxes.clock.advance(seconds=59)
    assert mailboxes.asked(lambda: rival.refresher.refresh_due("default")) == 0
    mailboxes.clock.advance(seconds=1)
    assert mailboxes.asked(lambda: rival.refresher.refresh_due("default")) == 1


def test_single_failures_days_apart_do_not_add_up(mailboxes: Mailboxes) -> None:
    """A 503 here and there, for ever another account, with good answers in between: that is a normal week."""
    for number in range(4):
        failing, fine = f"failing{number}@contoso.com", f"fine{number}@contoso.com"
        mailboxes.emulator.add_fault(fault_named("html-503"), failing, times=1)
        mailboxes.sign_in(failing)
        assert mailboxes.refresh_due()["transient"] == 1
        mailboxes.sign_in(fine)
        assert mailboxes.refresh_due()["refreshed"] >= 1

    assert mailboxes.breakers() == [(0, None, None)]


def test_a_restart_does_not_close_it(
    mailboxes: Mailboxes, settings: Settings, clock: TurnedClock, fifty: list[str]
) -> None:
    """A supervisor that restarts a failing worker must not make a storm of it."""
    mailboxes.refuse_the_secret()
    mailboxes.refresh_due()

    def restart() -> None:
        for _ in range(3):
            restarted = bootstrap(settings, utcnow=clock)
            assert restarted.refresher.refresh_due("default") == NONE
            restarted.close()

    assert mailboxes.asked(restart) == 0
    clock.advance(seconds=10)
    assert mailboxes.asked(mailboxes.refresh_due) == 1


def test_nobody_is_asked_to_sign_in_by_trouble_with_the_app(mailboxes: Mailboxes, fifty: list[str]) -> None:
    """Days of it, with every account having been the canary or in the first handful more than once."""
    mailboxes.refuse_the_secret()
    for _ in range(40):
        mailboxes.refresh_due()
        mailboxes.clock.advance(hours=1)

    assert {account.status for account in mailboxes.accounts()} == {Status.ACTIVE}
    assert mailboxes.harmed() == []
    assert mailboxes.requests <= mailboxes.handful + 40
