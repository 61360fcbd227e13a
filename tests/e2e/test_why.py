"""The command ``why``: an account in plain words, on one screen."""

import json
import re
from typing import Any

import pytest

from tests.constants import ANN, BOB
from tests.e2e.deployment import Deployment
from tests.e2e.terminal import COLUMNS, in_terminal
from worker.devkit.emulator import fault_named
from worker.domain.codes import hint

ROWS = 24
CORRELATION_ID = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


def why(deployment: Deployment, email: str = ANN) -> dict[str, Any]:
    done = deployment.cli("why", email, "--json")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_revoked_sign_in_is_explained_on_one_screen(deployment: Deployment) -> None:
    """Nothing is cut, and the correlation ids are whole."""
    deployment.add_due_accounts(ANN)
    deployment.cli("refresh", ANN)
    deployment.emulator.add_fault(fault_named("50173"), ANN)
    for _ in range(3):
        deployment.cli("refresh", ANN)

    status, output = in_terminal(deployment, "why", ANN)

    assert status == 0
    lines = output.splitlines()
    assert max(map(len, lines)) <= COLUMNS
    assert len(lines) < ROWS, output
    assert len(CORRELATION_ID.findall(output)) == 4
    assert "…" not in output
    words = " ".join(output.split())
    assert words.startswith(f"{ANN} needs its user to sign in again. Its access token lives for ")
    assert "It has failed 3 times in a row, first at " in words
    assert f"Meaning {hint('AADSTS50173')}" in words
    assert "Who helps The user, by signing in again." in words
    assert "Next Once a day the worker asks Microsoft again, next in " in words
    assert "User gets Your password has changed" in words
    assert f"token-worker refresh {ANN}" in words


def test_a_healthy_account_needs_nobody(deployment: Deployment) -> None:
    deployment.add_due_accounts(ANN)
    deployment.cli("refresh", ANN)

    found = why(deployment)

    assert found["state"].startswith(f"{ANN} is active and well. Its access token lives for ")
    assert (found["meaning"], found["who"], found["user_reads"]) == (None, "Nobody needs to.", None)
    assert found["next_at"] is not None
    assert "No beat is alive" not in found["next"]  # begins with "But", which a reader cannot miss
    assert "But no beat is alive. But no worker is alive." in found["next"]
    assert [line["outcome"] for line in found["history"]] == ["refreshed"]


@pytest.mark.parametrize(
    ("fault", "who", "command"),
    [
        ("7000222", "You: it is the app registration.", "token-worker breaker try default"),
        ("700016", "An administrator of the mailbox's tenant.", "token-worker resume --code AADSTS700016"),
        ("53003", "An administrator of the mailbox's tenant.", f"token-worker refresh {ANN}"),
        ("throttled", "Nobody needs to; it passes.", f"token-worker refresh {ANN}"),
        ("70043", "The user, by signing in again.", f"token-worker refresh {ANN}"),
    ],
)
def test_the_person_who_can_help_is_named(deployment: Deployment, fault: str, who: str, command: str) -> None:
    """With a command that puts the account back once the cause is gone."""
    deployment.add_due_accounts(ANN)
    deployment.emulator.add_fault(fault_named(fault), ANN)
    deployment.cli("refresh", ANN)

    found = why(deployment)

    assert found["who"] == who
    assert command in " ".join(found["you_can"])
    assert found["meaning"] == hint(found["history"][0]["code"])


def test_a_pause_of_the_tenant_is_named(deployment: Deployment) -> None:
    """To resume the account alone would leave the others out."""
    deployment.add_due_accounts(ANN)
    deployment.cli("pause", "--domain", "contoso.com", "--yes")

    found = why(deployment)

    assert found["state"].startswith(f"{ANN} is paused by an operator.")
    assert (found["next"], found["who"]) == ("The worker does not refresh it.", "You.")
    assert found["you_can"] == [
        f"Resume it: token-worker resume {ANN}",
        "Resume all of contoso.com, which you have paused: token-worker resume --domain contoso.com",
    ]


def test_an_open_breaker_a_throttle_and_a_pending_result_are_named(deployment: Deployment) -> None:
    """The due time in the row is not all that decides."""
    deployment.add_due_accounts(ANN, BOB)
    deployment.sql(
        "INSERT INTO oauth_clients (name, failure_kind, failure_code, failures, opened_at, open_until, updated_at)"
        " VALUES ('default', 'misconfigured', 'AADSTS7000222', 3, now(), now() + interval '1 hour', now())"
    )
    with deployment.services() as services:
        redis, ann = services.redis, services.accounts.find(ANN)
        redis.hset(redis.names.outbox, str(ann.id), b"a result")

    found = why(deployment)

    assert "(AADSTS7000222): not used for 60 min" in found["next"]
    assert "waits in the outbox" in found["next"]
    assert "outbox" not in why(deployment, BOB)["next"]


def test_an_account_is_explained_while_redis_is_unavailable(deployment: Deployment) -> None:
    deployment.add_due_accounts(ANN)

    done = deployment.cli("why", ANN, WORKER_REDIS_URL="redis://127.0.0.1:1/0")

    assert (done.returncode, done.stderr) == (0, "")
    assert "But no" not in done.stdout


@pytest.mark.parametrize("state", ["unreadable", "disconnected", "password"])
def test_states_without_refreshes_are_explained(deployment: Deployment, state: str) -> None:
    deployment.add_due_accounts(ANN)
    change = "use_oauth = false" if state == "password" else f"status = '{state}'"
    deployment.sql(f"UPDATE mail_credentials SET refresh_due_at = NULL, {change} WHERE email = %s", ANN)

    assert why(deployment)["next"] == "The worker does not refresh it."


def test_an_unknown_account_is_one_sentence(deployment: Deployment) -> None:
    done = deployment.cli("why", ANN)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: {ANN}: no such account; import it or connect it first\n"
