"""Flower shows the fleet, and only with the password."""

import re
import socket
from contextlib import suppress
from pathlib import Path

from tests.e2e.deployment import Deployment
from tests.e2e.flower import LOGIN, Flower
from tests.factories import emails
from tests.waiting import wait_for

PAGES = ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks", "/api/task/types", "/api/queues/length")

ACTIONS = ("/api/task/send-task/worker.sweep", "/api/worker/shutdown/watched", "/api/worker/pool/shrink/watched")


def test_flower_shows_the_worker_its_sweeps_and_its_batches(deployment: Deployment) -> None:
    """An operator sees that the worker is online, and that sweeps and batches succeed. Without the password each page
    and each action gets status 401."""
    deployment.add_due_accounts(*emails(3))
    flower = Flower(deployment, FLOWER_BASIC_AUTH=LOGIN)
    worker, beat = deployment.worker("watched"), deployment.celery("beat")

    wait_for(
        lambda: _names_of_successes(flower) >= {"worker.sweep", "worker.refresh_batch"},
        about="tasks in Flower",
        processes=[flower.process, worker, beat],
    )
    online = {
        worker["hostname"].partition("@")[0]: worker["status"] for worker in flower.json("/workers?json=1")["data"]
    }

    assert online == {"watched": True}
    assert [name.partition("@")[0] for name in flower.json("/api/workers?refresh=true")] == ["watched"]
    assert {page: flower.status(page) for page in PAGES} == dict.fromkeys(PAGES, 401)
    assert {action: flower.status(action, method="POST") for action in ACTIONS} == dict.fromkeys(ACTIONS, 401)
    assert flower.status("/api/tasks", "ops:wrong") == 401
    assert _listens_on_loopback_only(flower.port)


def test_without_a_password_in_the_settings_flower_gets_a_random_one(deployment: Deployment) -> None:
    """A forgotten password must not mean that everyone has access."""
    flower = Flower(deployment)

    printed = re.search(r"sign in as (\S+), password (\S+) ", flower.process.output())

    assert printed
    assert len(printed[2]) >= 12
    assert {page: flower.status(page) for page in PAGES} == dict.fromkeys(PAGES, 401)
    assert flower.status("/", f"{printed[1]}:{printed[2]}") == 200
    assert _listens_on_loopback_only(flower.port)


def test_the_password_may_be_a_file(deployment: Deployment, tmp_path: Path) -> None:
    """Compose, Kubernetes and systemd hand secrets over as files. An empty file must not mean another password."""
    (tmp_path / "FLOWER_BASIC_AUTH").write_text(f"{LOGIN}\n")
    flower = Flower(deployment, WORKER_SECRETS_DIR=str(tmp_path))

    assert flower.status("/") == 401
    assert flower.status("/", LOGIN) == 200

    (tmp_path / "FLOWER_BASIC_AUTH").write_text("\n")
    refused = deployment.celery("flower", "--port=0", WORKER_SECRETS_DIR=str(tmp_path))

    wait_for(lambda: not refused.alive(), about="Flower to refuse")
    assert refused.output().strip() == (
        "Configuration error: the file FLOWER_BASIC_AUTH in WORKER_SECRETS_DIR is empty or cannot be read"
    )


def test_a_kubernetes_service_named_flower_does_no_harm(deployment: Deployment) -> None:
    """Kubernetes sets FLOWER_PORT to the address of the Service, and Flower would take it for its own option."""
    flower = deployment.celery("flower", "--port=0", FLOWER_PORT="tcp://10.0.0.1:5555", FLOWER_SERVICE_HOST="10.0.0.1")

    wait_for(lambda: "Visit me at" in flower.output(), about="Flower to start", processes=[flower])


def _names_of_successes(flower: Flower) -> set[str]:
    return {task["name"] for task in flower.json("/api/tasks?state=SUCCESS").values()}


def _listens_on_loopback_only(port: int) -> bool:
    """A server on every address would accept connections on another loopback address, too."""
    for address in ("127.0.0.2", "::1"):
        with suppress(OSError), socket.create_connection((address, port), timeout=2):
            return False
    return True
