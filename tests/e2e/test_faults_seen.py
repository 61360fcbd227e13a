"""Eleven faults of a fleet. ``status`` shows each, ``why`` or ``doctor`` explains it, and one command repairs it.

The alerts that they fire are tested in tests/integration/exporter/test_alerts.py.
"""

import json
from datetime import timedelta

import pytest

from tests.constants import ANN, BOB
from tests.e2e.deployment import Deployment
from tests.e2e.sound_fleet import Puts, _put, _running
from tests.factories import emails
from tests.waiting import wait_for
from worker.clock import utcnow
from worker.devkit.emulator import fault_named
from worker.devkit.stack import Stack
from worker.domain.account import Status
from worker.domain.heartbeat import Role

__all__ = ["_put", "_running"]

SCREEN = 24  # rows


def check(fleet: Deployment, *, sees: str) -> None:
    """`status --check` prints one line with these words, and exits with 1."""
    done = fleet.cli("status", "--check")
    assert (done.returncode, done.stdout.count("\n")) == (1, 1), done.stdout
    assert sees in done.stdout


def check_well(fleet: Deployment) -> None:
    done = fleet.cli("status", "--check")
    assert done.returncode == 0, done.stdout


def explained(fleet: Deployment, *command: str) -> str:
    output = fleet.cli(*command).stdout
    assert len(output.splitlines()) < SCREEN
    return output


def refresh_due(fleet: Deployment) -> dict[str, int]:
    """As a worker does; the wait of a batch after a closed breaker is left out."""
    with fleet.services() as services:
        return services.refresher.refresh_due()


def repair(fleet: Deployment) -> None:
    fleet.emulator.clear_faults()


def test_a_client_secret_has_expired(running: Deployment) -> None:
    running.add_due_accounts(*emails(5))
    running.emulator.add_fault(fault_named("7000222"))
    refresh_due(running)

    check(running, sees="app registration default: misconfigured (AADSTS7000222), not used for ")
    assert "You: it is the app registration." in explained(running, "why", emails(5)[0])

    repair(running)
    assert running.cli("breaker", "try", "default").returncode == 0
    # The accounts back off for some seconds by themselves.
    wait_for(lambda: refresh_due(running).get("refreshed"), about="the probe")
    assert "closed" in running.cli("breaker", "list").stdout


def test_a_tenant_blocks_the_app(running: Deployment) -> None:
    tenant, others = emails(4), emails(3, "fabrikam.com")
    for email in tenant:
        running.emulator.add_fault(fault_named("700016"), email)
    running.add_due_accounts(*tenant, *others)
    refresh_due(running)

    assert "4 AADSTS700016 (contoso.com, all within the hour)" in running.cli("status").stdout
    assert running.cli("status", "--by", "domain").stdout.splitlines()[0].split("\t")[:3] == ["contoso.com", "4", "4"]
    assert "An administrator of the mailbox's tenant." in explained(running, "why", tenant[0])

    repair(running)
    done = running.cli("resume", "--code", "700016", "--yes")
    assert done.stdout == "4 accounts are active and due.\n"
    assert refresh_due(running)["refreshed"] == 4
    check_well(running)


def test_microsoft_throttles(running: Deployment) -> None:
    """It passes by itself. An operator who knows that it has passed can end both waits."""
    running.add_due_accounts(*emails(5))
    running.emulator.add_fault(fault_named("throttled"))
    refresh_due(running)

    check(running, sees="app registration default: throttled (http_429), not used for ")
    assert "Nobody needs to; it passes." in explained(running, "why", emails(5)[0])

    repair(running)
    assert running.cli("breaker", "try", "default").returncode == 0
    assert running.cli("refresh", "--failing", "--yes").returncode == 0
    assert refresh_due(running)["refreshed"] >= 1


@pytest.mark.parametrize(("store", "name"), [("postgres", "Postgres"), ("valkey", "Redis")])
def test_a_store_is_down(running: Deployment, stack: Stack, store: str, name: str) -> None:
    """It needs no command once the store is back."""
    server = getattr(stack, store)
    server.stop()
    try:
        check(running, sees=f"{name} is unavailable: ")
        assert f"! {name} is unavailable: " in running.cli("status").stdout
        assert "FAIL" in explained(running, "doctor")
    finally:
        server.start()

    assert json.loads(running.cli("status", "--json").stdout)["unavailable"] == {}


@pytest.mark.parametrize("role", [Role.BEAT, Role.WORKER])
def test_beat_or_the_workers_are_dead(deployment: Deployment, put: Puts, role: Role) -> None:
    """The sentence has the command that starts them."""
    [other] = {Role.BEAT, Role.WORKER} - {role}
    put(other)
    deployment.add_due_accounts(ANN)

    check(deployment, sees=f"Start: celery -A worker {role}")
    assert f"no {role} is alive" in explained(deployment, "doctor")
    assert f"But no {role} is alive." in explained(deployment, "why", ANN)

    put(role)
    assert f"No {role} is alive" not in deployment.cli("status").stdout


def test_one_account_fails(running: Deployment) -> None:
    """It is in the figures, and is no trouble of the fleet."""
    running.add_due_accounts(ANN, BOB)
    running.emulator.add_fault(fault_named("50173"), ANN)
    refresh_due(running)

    assert "1 AADSTS50173 (all within the hour)" in running.cli("status").stdout
    check_well(running)
    assert "The user, by signing in again." in explained(running, "why", ANN)

    repair(running)
    assert running.cli("refresh", ANN).returncode == 0
    assert running.accounts()[ANN].status is Status.ACTIVE


def test_a_worker_lacks_a_key(running: Deployment, put: Puts) -> None:
    put(Role.WORKER, host="web-2", pid=2, key_ids=("k0",))

    check(running, sees="lacks the key")
    assert "worker web-2 2 lacks the key k1" in running.cli("status").stdout
    assert "worker web-2 2 lacks k1" in explained(running, "doctor")


def test_three_hundred_sign_ins_are_revoked(running: Deployment) -> None:
    """Their list is for the product, which asks the users; a mistake is undone by one command."""
    revoked = emails(300)
    running.add_due_accounts(*revoked)
    running.emulator.add_fault(fault_named("50173"))
    refresh_due(running)
    refresh_due(running)

    assert "300 AADSTS50173 (contoso.com, all within the hour)" in running.cli("status").stdout
    listed = running.cli("list", "--code", "50173", "--since", "1h", "--json").stdout.splitlines()
    assert [json.loads(line)["email"] for line in listed] == revoked
    assert "The user, by signing in again." in explained(running, "why", revoked[0])

    repair(running)
    done = running.cli("refresh", "--status", "reauth_required", "--yes")
    assert done.stdout == "300 accounts are due; the workers refresh them.\n"
    assert refresh_due(running)["refreshed"] + refresh_due(running)["refreshed"] == 300
    assert {account.status for account in running.accounts().values()} == {Status.ACTIVE}


def test_a_clock_is_ten_minutes_off(running: Deployment, put: Puts) -> None:
    put(Role.WORKER, host="web-2", pid=2, at=utcnow() + timedelta(minutes=10))

    check(running, sees="The clock of worker web-2 2 is 10 min ahead.")
    assert "the clock of worker web-2 is 10 min ahead" in explained(running, "doctor")
