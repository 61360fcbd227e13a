"""The command ``status``: each part by itself, figures by dimension, and one sentence for a monitor."""

import json
import os
import signal
from datetime import timedelta
from typing import Any

import pytest

from tests.constants import ANN, BOB, CAT, DAN
from tests.e2e.deployment import BIN, Deployment
from tests.e2e.sound_fleet import Puts, _put, _running
from tests.e2e.terminal import COLUMNS, in_terminal
from tests.waiting import wait_for
from worker import __version__
from worker.clock import utcnow
from worker.devkit.emulator import fault_named
from worker.devkit.stack import Stack
from worker.domain.heartbeat import Role

__all__ = ["_put", "_running"]


def described(deployment: Deployment) -> dict[str, Any]:
    done = deployment.cli("status", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_status_shows_the_fleet_on_one_screen(running: Deployment) -> None:
    """Accounts, beat, workers with their keys and queues, and the queues of the broker."""
    running.add_due_accounts(ANN, BOB)
    running.cli("pause", BOB)

    status, output = in_terminal(running, "status")

    assert status == 0
    lines = output.splitlines()
    assert len(lines) <= 22
    assert max(map(len, lines)) <= COLUMNS
    assert "accounts           1 active, 1 paused" in lines
    assert "expired            1" in lines  # it never had an access token, and is due
    assert "processes          1 beat, 1 worker" in lines
    assert "queues             ondemand 0, sweep 0, refresh 0" in lines
    words = " ".join(output.split())
    assert f"worker web-1 4711, version {__version__}," in words
    assert "queues ondemand sweep refresh, keys k1" in words


def test_a_check_of_a_sound_fleet_is_quiet(running: Deployment) -> None:
    done = running.cli("status", "--check")

    assert (done.returncode, done.stdout, done.stderr) == (0, "ok: 0 accounts, 0 due\n", "")


def test_status_without_postgres_shows_the_outbox(running: Deployment, stack: Stack) -> None:
    """The outbox matters most just then."""
    with running.services() as services:
        services.redis.hset(services.redis.names.outbox, "an account", b"a result")
    stack.postgres.stop()
    try:
        found, text, check = described(running), running.cli("status"), running.cli("status", "--check")
    finally:
        stack.postgres.start()

    assert (found["accounts"], found["due"], found["breakers"], found["in_outbox"]) == (None, None, None, 1)
    assert found["queues"] == {"ondemand": 0, "sweep": 0, "refresh": 0}
    assert [each["role"] for each in found["processes"]] == ["beat", "worker"]
    assert "cannot be used" in found["unavailable"]["Postgres"]
    assert text.returncode == 0
    lines = [line.split() for line in text.stdout.splitlines()]
    assert ["in", "outbox", "1"] in lines
    assert ["accounts", "-"] in lines
    assert (check.returncode, check.stdout.count("\n")) == (1, 1)
    assert check.stdout.startswith("Postgres is unavailable: ")


def test_status_without_redis_shows_the_accounts(running: Deployment, stack: Stack) -> None:
    running.add_due_accounts(ANN)
    stack.valkey.stop()
    try:
        found, check = described(running), running.cli("status", "--check")
    finally:
        stack.valkey.start()

    assert found["accounts"] == {"active": 1}
    assert (found["in_outbox"], found["queues"], found["processes"]) == (None, None, None)
    assert set(found["unavailable"]) == {"Redis", "the broker"}
    assert (check.returncode, check.stdout.count("\n")) == (1, 1)


def test_a_missing_beat_and_a_missing_worker_are_named(deployment: Deployment, put: Puts) -> None:
    """With the command that starts them."""
    assert [trouble.partition(",")[0] for trouble in described(deployment)["troubles"]] == [
        "No beat is alive",
        "No worker is alive",
    ]
    put(Role.BEAT)
    put(Role.WORKER, queues=("ondemand",))
    [trouble] = described(deployment)["troubles"]
    assert trouble == "No worker takes tasks from sweep,refresh. Start: celery -A worker worker -Q sweep,refresh"


def test_workers_without_a_key_and_wrong_clocks_are_named(running: Deployment, put: Puts) -> None:
    """The key is known to this command or to another worker."""
    put(Role.WORKER, host="web-2", pid=2, key_ids=("k0",))
    put(Role.WORKER, host="web-3", pid=3, at=utcnow() + timedelta(minutes=10))

    assert described(running)["troubles"] == [
        "worker web-1 4711 lacks the key k0. Set all of WORKER_ENCRYPTION_KEYS there.",
        "worker web-2 2 lacks the key k1. Set all of WORKER_ENCRYPTION_KEYS there.",
        "worker web-3 3 lacks the key k0. Set all of WORKER_ENCRYPTION_KEYS there.",
        "The clock of worker web-3 3 is 10 min ahead. Synchronise the clocks (NTP).",
    ]


def test_the_codes_of_failing_accounts_are_counted(running: Deployment) -> None:
    """The domain is named if it is the only one."""
    for email in (ANN, CAT, DAN):
        running.emulator.add_fault(fault_named("700016"), email)
    running.add_due_accounts(ANN, BOB, CAT, DAN)
    with running.services() as services:
        services.refresher.refresh_due()

    assert "failing with       3 AADSTS700016 (contoso.com, all within the hour)\n" in running.cli("status").stdout
    [code] = described(running)["codes"]
    assert code == {"code": "AADSTS700016", "accounts": 3, "lately": 3, "client": "default", "domain": "contoso.com"}


@pytest.mark.parametrize(
    ("dimension", "names"),
    [("client", ["default"]), ("domain", ["contoso.com", "fabrikam.com"]), ("code", ["AADSTS50173", None]),
     ("label", ["plan=pro", None])],
)  # fmt: skip
def test_figures_are_shown_by_dimension(running: Deployment, dimension: str, names: list[str | None]) -> None:
    """Those with most failing accounts come first."""
    running.emulator.add_fault(fault_named("50173"), ANN)
    running.add_due_accounts(ANN, BOB)
    running.sql("UPDATE mail_credentials SET labels = '{plan=pro}' WHERE email = %s", ANN)
    with running.services() as services:
        services.refresher.refresh_due()

    rows = [json.loads(line) for line in running.cli("status", "--by", dimension, "--json").stdout.splitlines()]

    assert [row[dimension] for row in rows] == names
    assert (rows[0]["failing"], rows[0]["need_attention"]) == (1, 1)
    assert running.cli("status", "--by", dimension).stdout.startswith(f"{names[0]}\t")


def test_the_options_exclude_each_other(running: Deployment) -> None:
    assert running.cli("status", "--check", "--watch").returncode == 2


def test_status_is_repeated_until_ctrl_c(running: Deployment) -> None:
    process = running.start([str(BIN / "token-worker"), "status", "--watch"])
    wait_for(lambda: process.output().count("accounts  ") == 2, about="the second status", processes=[process])

    os.kill(process.pid, signal.SIGINT)

    wait_for(lambda: not process.alive(), about="the end")
    assert "Traceback" not in process.output()
