"""While an app registration fails, two processes send few requests, blame no account, and need no new sign-in."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr

from tests.factories import NOW, emails
from tests.integration.installation import Installation
from worker.bootstrap import Services
from worker.devkit.emulator import Registration, fault_named, oauth_error
from worker.domain.account import Status
from worker.domain.errors import BackingOff, WorkerError
from worker.settings.clients import ClientSettings

NONE = {"leased": 0}


def test_a_rejected_secret_costs_few_requests_and_blames_no_account(
    installation: Installation, other_process: Services, fifty: list[str]
) -> None:
    """An expired secret says nothing about any mailbox, and fifty requests would not change it."""
    installation.reject_secret()

    tally = installation.refresh_due()

    sent = installation.requests
    assert 3 <= sent <= installation.requests_until_open
    assert tally == {"leased": 50, "misconfigured": sent, "returned": 50 - sent}
    assert installation.blamed_accounts() == []
    assert {account.version for account in installation.accounts()} == {1}
    without_request = [account for account in installation.accounts() if account.failure is None]
    assert [account.due_at for account in without_request] == [NOW] * (50 - sent)
    assert installation.breaker_rows() == [(1, "AADSTS7000215", NOW + timedelta(seconds=10))]
    assert other_process.refresher.refresh_due() == NONE
    assert other_process.refresher.batches_due(limit=64) == []
    assert installation.requests == sent


def test_one_probe_is_sent_per_interval(installation: Installation, other_process: Services, fifty: list[str]) -> None:
    """Two processes and many consumers share one probe per interval, and the wait doubles."""
    installation.reject_secret()
    installation.refresh_due()

    def read(number: int) -> None:
        with suppress(WorkerError):
            (other_process, installation.services)[number % 2].tokens.get(fifty[number])

    def sweep(number: int) -> None:
        (other_process, installation.services)[number % 2].refresher.refresh_due()

    def read_and_sweep() -> None:
        with ThreadPoolExecutor(12) as pool:
            for done in [pool.submit((read, sweep)[number % 3 == 0], number) for number in range(24)]:
                done.result()

    probes = []
    for wait in (10, 19, 1, 39, 1):
        installation.clock.advance(seconds=wait)
        probes.append(installation.requests_during(read_and_sweep))

    assert probes == [1, 0, 1, 0, 1]
    assert installation.breaker_rows() == [(4, "AADSTS7000215", installation.clock.now + timedelta(seconds=80))]
    assert installation.blamed_accounts() == []


def test_a_successful_probe_closes_the_breaker_and_a_ramp_follows(
    installation: Installation, other_process: Services, fifty: list[str]
) -> None:
    """One, ten and twenty requests, then all: every mailbox has a token again without its user."""
    installation.reject_secret()
    installation.refresh_due()
    installation.accept_secret()

    installation.clock.advance(seconds=10)
    steps = [installation.requests_during(installation.refresh_due) for _ in range(2)]
    assert other_process.refresher.batches_due(limit=64) == ["default"]
    for _ in range(2):
        installation.clock.advance(seconds=5)
        steps.append(installation.requests_during(other_process.refresher.refresh_due))

    assert steps == [1, 10, 20, 19]
    assert {account.version for account in installation.accounts()} == {2}
    assert not any(account.failure for account in installation.accounts())
    assert installation.blamed_accounts() == []
    assert installation.breaker_rows() == [(0, None, None)]


def test_no_request_is_sent_before_retry_after_is_over(
    installation: Installation, other_process: Services, fifty: list[str]
) -> None:
    """Microsoft sends a Retry-After of 60 s to a few requests. All workers and consumers honour it."""
    installation.emulator.add_fault(fault_named("throttled"))
    assert installation.refresh_due()["returned"] >= 50 - installation.requests_until_open
    installation.emulator.clear_faults()

    def sweep_and_read() -> None:
        for services in (installation.services, other_process):
            services.refresher.refresh_due()
            with pytest.raises(BackingOff):
                services.tokens.get(fifty[-1])

    installation.clock.advance(seconds=59.9)
    assert installation.requests_during(sweep_and_read) == 0
    installation.clock.advance(seconds=0.1)
    assert installation.requests_during(installation.refresh_due) == 1
    for _ in range(4):
        installation.clock.advance(seconds=5)
        other_process.refresher.refresh_due()
    assert {account.version for account in installation.accounts()} == {2}
    assert installation.blamed_accounts() == []


def test_during_a_storm_of_5xx_only_probes_are_sent(
    installation: Installation, other_process: Services, fifty: list[str]
) -> None:
    """Five minutes of 503 with sweeps every five seconds cost only probes, after 10, 20, 40, 80 and 160 s."""
    installation.emulator.add_fault(fault_named("html-503"))
    assert installation.requests_during(installation.refresh_due) <= installation.requests_until_open

    def storm() -> None:
        for _ in range(60):
            installation.clock.advance(seconds=5)
            installation.refresh_due()
            other_process.refresher.refresh_due()

    assert installation.requests_during(storm) == 4
    assert installation.breaker_rows() == [(5, "http_503", NOW + timedelta(seconds=310))]
    assert installation.blamed_accounts() == []
    installation.emulator.clear_faults()
    installation.clock.advance(seconds=10)
    for _ in range(5):
        installation.refresh_due()
        installation.clock.advance(seconds=5)
    assert {account.version for account in installation.accounts()} == {2}


def test_detected_loops_never_open_the_breaker(installation: Installation, fifty: list[str]) -> None:
    """AADSTS50196 arrives as invalid_grant and is about the requests of one account, so the others go on."""
    for email in fifty[:40]:
        installation.emulator.add_fault(oauth_error("50196"), email)

    assert installation.refresh_due() == {"leased": 50, "throttled": 40, "refreshed": 10}

    assert installation.breaker_rows() == []
    assert installation.blamed_accounts() == []


def test_a_tenant_that_is_gone_does_not_stop_the_others(installation: Installation, fifty: list[str]) -> None:
    """AADSTS90002 is about one customer who has left. Every other tenant is refreshed in the same batch."""
    gone = emails(30, "gone.example")
    installation.sign_in(*gone, due=True)
    for email in gone:
        installation.emulator.add_fault(oauth_error("90002"), email)

    assert installation.refresh_due() == {"leased": 80, "misconfigured": 30, "refreshed": 50}

    assert installation.breaker_rows() == []
    assert installation.blamed_accounts() == []


def test_another_app_registration_goes_on(installation: Installation) -> None:
    """Each registration has its own secret, its own limits at Microsoft, and its own breaker."""
    installation.emulator.registrations.register(Registration(client_id="other-app", secrets=("other",)))
    authority = installation.settings.authority
    other = ClientSettings(client_id="other-app", client_secret=SecretStr("other"), authority=authority)
    services = installation.another_process(clients={"other": other})
    both = replace(installation, services=services)
    both.sign_in(*emails(20), due=True)
    both.sign_in(*emails(20, "fabrikam.com"), due=True, client="other", client_id="other-app")
    both.reject_secret()

    assert both.refresh_due()["returned"] > 0
    assert services.refresher.batches_due(limit=64) == ["other"]
    assert both.refresh_due("other") == {"leased": 20, "refreshed": 20}
    assert [(breaker.client, breaker.failures) for breaker in services.events.breakers()] == [("default", 1)]


def test_a_machine_without_a_network_stops_only_its_own_requests(
    installation: Installation, without_microsoft: Services, fifty: list[str]
) -> None:
    """The failure says nothing about the app registration, so other machines must go on."""
    tally = without_microsoft.refresher.refresh_due()

    assert 3 <= tally["transient"] <= installation.requests_until_open
    assert tally["returned"] == 50 - tally["transient"]
    assert without_microsoft.refresher.refresh_due() == NONE
    with pytest.raises(BackingOff, match="connect_failed") as caught:
        without_microsoft.tokens.get(fifty[-1])
    assert caught.value.retry_after == timedelta(seconds=10)
    assert installation.breaker_rows() == []
    assert installation.blamed_accounts() == []

    assert installation.refresh_due() == {"leased": tally["returned"], "refreshed": tally["returned"]}


def test_a_probe_that_cannot_reach_microsoft_is_released(
    installation: Installation, without_microsoft: Services, fifty: list[str]
) -> None:
    """A machine without a network that probes first must not block the others for a minute."""
    installation.reject_secret()
    installation.refresh_due()
    installation.accept_secret()
    installation.clock.advance(seconds=10)

    assert without_microsoft.refresher.refresh_due() == {"leased": 1, "transient": 1}

    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}


def test_a_probe_that_is_not_sent_is_released(
    installation: Installation, other_process: Services, fifty: list[str]
) -> None:
    """Nothing was due, or the account was leased elsewhere. The next process that has a request may send it at once."""
    installation.reject_secret()
    installation.refresh_due()
    installation.accept_secret()
    installation.clock.advance(seconds=10)
    installation.query(
        "UPDATE mail_credentials SET lease_id = gen_random_uuid(), lease_until = :until",
        until=installation.clock() + timedelta(hours=1),
    )

    assert installation.refresh_due() == NONE
    assert installation.services.refresher.batches_due(limit=64) == []
    installation.query("UPDATE mail_credentials SET lease_id = NULL")

    assert other_process.tokens.get(fifty[-1]).version == 2


def test_a_process_that_dies_with_its_probe_blocks_the_others_for_a_minute(
    installation: Installation, other_process: Services, fifty: list[str]
) -> None:
    """The right to probe expires like a lease."""
    installation.reject_secret()
    installation.refresh_due()
    installation.clock.advance(seconds=10)
    installation.query(
        "UPDATE oauth_clients SET open_until = open_until + interval '60 s'"
    )  # and the process never reports a result

    installation.clock.advance(seconds=59)
    assert installation.requests_during(other_process.refresher.refresh_due) == 0
    installation.clock.advance(seconds=1)
    assert installation.requests_during(other_process.refresher.refresh_due) == 1


def test_single_failures_days_apart_do_not_add_up(installation: Installation) -> None:
    """A 503 now and then, each for another account and with successes in between, is a normal week."""
    for number in range(4):
        failing, fine = f"failing{number}@contoso.com", f"fine{number}@contoso.com"
        installation.emulator.add_fault(fault_named("html-503"), failing, times=1)
        installation.sign_in(failing, due=True)
        assert installation.refresh_due()["transient"] == 1
        installation.sign_in(fine, due=True)
        assert installation.refresh_due()["refreshed"] >= 1

    assert installation.breaker_rows() == [(0, None, None)]


def test_a_restart_does_not_close_the_breaker(installation: Installation, fifty: list[str]) -> None:
    """A supervisor that restarts a failing worker must not cause a storm of requests."""
    installation.reject_secret()
    installation.refresh_due()

    def restart() -> None:
        for _ in range(3):
            assert installation.another_process().refresher.refresh_due() == NONE

    assert installation.requests_during(restart) == 0
    installation.clock.advance(seconds=10)
    assert installation.requests_during(installation.refresh_due) == 1


def test_a_failing_app_registration_causes_no_sign_in(installation: Installation, fifty: list[str]) -> None:
    """The breaker stays open for days, and every account has been the probe or among the first requests several
    times."""
    installation.reject_secret()
    for _ in range(40):
        installation.refresh_due()
        installation.clock.advance(hours=1)

    assert {account.status for account in installation.accounts()} == {Status.ACTIVE}
    assert installation.blamed_accounts() == []
    assert installation.requests <= installation.requests_until_open + 40
