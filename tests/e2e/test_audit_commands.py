"""Operators give reasons to commands; `audit` and `show` list what was done. No token is in them."""

import json

from tests.constants import ANN, BOB
from tests.e2e.deployment import Deployment


def test_the_record_of_commands(deployment: Deployment) -> None:
    deployment.add_due_accounts(ANN, BOB)
    assert deployment.cli("pause", ANN, "--reason", "ticket 7").returncode == 0
    assert deployment.cli("resume", "--all", "--yes", "--reason", "ticket 8").returncode == 0
    token = deployment.cli("token", ANN, "--reason", "a test login").stdout.strip()
    assert deployment.cli("breaker", "try", "default").returncode == 0

    done = deployment.cli("audit", "--json")
    acts = [json.loads(line) for line in done.stdout.splitlines()]

    assert [(act["action"], act["account"] or act["detail"], act["reason"]) for act in acts[:5]] == [
        ("breaker_tried", "default", None),
        ("token_printed", ANN, "a test login"),
        ("resumed", ANN, "ticket 8"),
        ("resumed", "all accounts", "ticket 8"),
        ("paused", ANN, "ticket 7"),
    ]
    assert {act["program"] for act in acts[:5]} == {"token-worker"}
    assert token
    assert token not in done.stdout
    assert deployment.cli("audit", "--account", BOB, "--json").stdout.count("saved") == 1
    assert "ticket 7" in deployment.cli("show", ANN).stdout
    assert deployment.cli("rotate-keys", "--reason", "ticket 9").returncode == 0
    assert "ticket 9" in deployment.cli("audit", "--limit", "1").stdout
    assert json.loads(deployment.cli("show", ANN, "--json").stdout)["audit"][0]["action"] == "token_printed"


def test_a_reason_that_looks_like_a_token_is_refused(deployment: Deployment) -> None:
    deployment.add_due_accounts(ANN)

    done = deployment.cli("pause", ANN, "--reason", "e" * 80)

    assert done.returncode == 2
    assert "as long as a token" in done.stderr
    assert "eeee" not in done.stderr
