"""The breaker opens for what concerns the app registration, and a few refused accounts stop no others."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from bench.breaker import Plan, Simulation
from bench.refusals import REFUSALS, Refusal
from tests.constants import ANN, HOUR
from tests.factories import emails
from tests.integration.installation import Installation
from worker.bootstrap import Services
from worker.devkit.emulator import Fault, RawAnswer, fault_named, oauth_error
from worker.domain.account import account_id
from worker.domain.errors import ClientMisconfigured, WorkerError

HEALTHY, REFUSED = emails(10), emails(6, "refused.example")
ABOUT_US = [
    oauth_error("7000215"),
    oauth_error("50194"),
    RawAnswer(b"", 429, retry_after=3600),
    fault_named("html-503"),
    fault_named("truncated-json"),
]


@pytest.fixture(name="fleet")
def _fleet(installation: Installation) -> Installation:
    """Two tenants whose accounts were refreshed, and are due again."""
    installation.sign_in(*HEALTHY, *REFUSED, due=True, lifetime=HOUR)
    assert installation.refresh_due() == {"leased": 16, "refreshed": 16}
    installation.clock.advance(hours=1)
    return installation


def refuse(installation: Installation, fault: Fault, accounts: Sequence[str] = REFUSED) -> None:
    for email in accounts:
        installation.emulator.add_fault(fault, email)


def make_due(installation: Installation, accounts: Sequence[str]) -> None:
    """These accounts become the longest overdue, and the others are not due."""
    later, now = installation.clock() + timedelta(minutes=10), installation.clock()
    installation.query("UPDATE mail_credentials SET refresh_due_at = :later", later=later)
    installation.query(
        "UPDATE mail_credentials SET refresh_due_at = :now WHERE email = ANY(:emails)", now=now, emails=list(accounts)
    )


@pytest.mark.parametrize("fault", ABOUT_US, ids=["secret", "authority", "429", "503", "malformed"])
def test_one_tenant_does_not_stop_the_others(fleet: Installation, fault: Fault) -> None:
    """A healthy account of another tenant is asked, in the same batch, and not even a ramp follows."""
    refuse(fleet, fault)
    make_due(fleet, REFUSED)

    counts = fleet.refresh_due()

    assert counts["refreshed"] <= 2
    assert [(failures, until) for failures, _, until in fleet.breaker_rows()] == [(0, None)]
    make_due(fleet, HEALTHY)
    assert fleet.refresh_due() == {"leased": 10, "refreshed": 10}
    assert fleet.logged("Token persisted to database")[16] in HEALTHY


@pytest.mark.parametrize("fault", ABOUT_US, ids=["secret", "authority", "429", "503", "malformed"])
def test_accounts_that_fail_for_long_are_no_evidence(fleet: Installation, fault: Fault) -> None:
    """They are asked again and again, alone. No healthy account is asked for their sake."""
    refuse(fleet, fault)
    make_due(fleet, REFUSED)
    fleet.refresh_due()
    fleet.refresh_due()

    for _ in range(3):
        fleet.clock.advance(seconds=20)
        make_due(fleet, REFUSED)
        assert "refreshed" not in fleet.refresh_due()

    assert [(failures, until) for failures, _, until in fleet.breaker_rows()] == [(0, None)]


@pytest.mark.parametrize("fault", ABOUT_US, ids=["secret", "authority", "429", "503", "malformed"])
def test_what_concerns_the_registration_is_noticed_in_one_batch(fleet: Installation, fault: Fault) -> None:
    """Three accounts at most fail, then a healthy one of another tenant. All others wait."""
    fleet.emulator.add_fault(fault)
    make_due(fleet, REFUSED[:3])

    assert fleet.requests_during(fleet.refresh_due) <= 4

    [(failures, _, until)] = fleet.breaker_rows()
    assert failures == 1
    assert until >= fleet.clock() + timedelta(seconds=10)
    assert fleet.blamed_accounts() == []
    [probed] = {account.email for account in fleet.accounts() if account.failure} - set(REFUSED)
    assert probed in HEALTHY


def test_probes_go_to_healthy_accounts(fleet: Installation) -> None:
    """The failing ones are longer overdue, but would fail for a reason of their own."""
    fleet.emulator.add_fault(fault_named("html-503"))
    make_due(fleet, REFUSED)
    fleet.refresh_due()
    fleet.emulator.clear_faults()
    refuse(fleet, fault_named("html-503"))
    fleet.clock.advance(seconds=15)
    make_due(fleet, REFUSED)

    assert fleet.refresh_due()["refreshed"] == 1

    assert fleet.logged("Token persisted to database")[-1] in HEALTHY
    assert fleet.breaker_rows() == [(0, None, None)]


def test_a_consumer_of_a_failing_account_takes_no_probe(fleet: Installation) -> None:
    """Another probe would have shown that the registration works again."""
    fleet.reject_secret()
    make_due(fleet, REFUSED[:1])
    fleet.refresh_due()
    fleet.accept_secret()
    fleet.clock.advance(seconds=15)

    def read() -> None:
        with pytest.raises(WorkerError):
            fleet.services.tokens.get(REFUSED[0])

    assert fleet.requests_during(read) == 0
    assert fleet.services.tokens.get(HEALTHY[0]).version > 1


def test_a_new_sign_in_is_refreshed_while_the_breaker_is_open(fleet: Installation, other_process: Services) -> None:
    """One per ten seconds, by sweeps and reads together. The first success closes the breaker."""
    open_breaker(fleet)
    new = emails(4, "new.example")
    fleet.clock.advance(seconds=1)
    fleet.sign_in(*new, due=True)

    def read_and_sweep() -> None:
        for services in (fleet.services, other_process):
            with pytest.raises(WorkerError):
                services.tokens.get(new[-1])
            services.refresher.refresh_due()

    requests = []
    for wait in (0, 5, 5):
        fleet.clock.advance(seconds=wait)
        requests.append(fleet.requests_during(read_and_sweep))
    assert requests == [1, 0, 2]  # the last is also time for a probe
    fleet.accept_secret()
    fleet.clock.advance(seconds=10)
    assert other_process.refresher.batches_due(limit=64) == ["default"]
    assert other_process.refresher.refresh_due() == {"leased": 1, "refreshed": 1}
    assert fleet.logged("Token persisted to database")[-1] in new
    assert fleet.breaker_rows() == [(0, None, None)]


def test_a_new_sign_in_waits_for_a_retry_after(fleet: Installation) -> None:
    """Microsoft has throttled the whole app registration."""
    fleet.emulator.add_fault(RawAnswer(b"", 429, retry_after=600))
    make_due(fleet, REFUSED)
    fleet.refresh_due()
    fleet.clock.advance(seconds=1)
    fleet.sign_in(ANN, due=True)

    assert fleet.services.refresher.batches_due(limit=64) == []


def test_an_operators_refresh_that_succeeds_closes_the_breaker(fleet: Installation) -> None:
    """The wait is not over, but the operator has corrected the secret and tries it."""
    open_breaker(fleet)
    fleet.accept_secret()
    fleet.clock.advance(seconds=1)

    assert fleet.services.on_demand.refresh_now(account_id(HEALTHY[0])).version > 1

    assert fleet.breaker_rows() == [(0, None, None)]


def test_a_suspicion_is_no_trouble_yet(fleet: Installation) -> None:
    """A process that suspects the registration has ended before it asked. Status and log stay quiet."""
    now = fleet.clock()
    fleet.query(
        "INSERT INTO oauth_clients (name, suspects, failure_kind, failure_code, opened_at, open_until, updated_at)"
        " VALUES ('default', '{}', 'misconfigured', 'AADSTS7000215', :now, :now, :now)",
        now=now,
    )

    assert fleet.services.events.breakers() == []
    assert fleet.services.refresher.batches_due(limit=64) == ["default"]
    fleet.refresh_due()

    assert fleet.breaker_rows() == [(0, None, None)]
    assert fleet.logged("App registration is not usable") == []


def open_breaker(installation: Installation) -> None:
    """Microsoft refuses the client secret, and a sweep has found it."""
    installation.reject_secret()
    make_due(installation, REFUSED)
    installation.refresh_due()
    [(failures, _, _)] = installation.breaker_rows()
    assert failures == 1
    with pytest.raises(ClientMisconfigured):
        installation.services.tokens.get(HEALTHY[0])


@pytest.mark.parametrize("refusal", [REFUSALS[8], REFUSALS[12]], ids=lambda refusal: refusal.name)
def test_a_fleet_with_refused_accounts_stays_healthy(installation: Installation, refusal: Refusal) -> None:
    """A small form of ``python -m bench.breaker``, whose table is in docs/breaker.md."""
    plan = Plan(
        refused=timedelta(minutes=4),
        broken=timedelta(minutes=40),
        repaired=timedelta(minutes=44),
        end=timedelta(minutes=50),
    )
    fleet = Simulation(installation.services, installation.emulator, installation.clock)

    result = fleet.run(refusal, healthy=12, refused=10, plan=plan)

    assert result.reads > 100
    assert result.sign_ins >= 4
    assert result.is_fair, result
