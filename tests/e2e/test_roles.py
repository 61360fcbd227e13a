"""Each process runs under its own role of Redis and Postgres, and no server refuses it anything."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import urllib3

from tests.constants import ANN, BOB
from tests.e2e.deployment import BIN, Deployment
from tests.e2e.flower import LOGIN, Flower
from tests.factories import emails
from tests.roles import OWNER, denied, postgres_roles, redis_users
from tests.waiting import HANG_LIMIT, wait_for

_READER = """
import json, sys
from worker.client import TokenClient

with TokenClient.from_env() as client:
    token = client.get(sys.argv[1])
    print(json.dumps([token.version, client.report_rejected(sys.argv[1], token.version).version]))
"""


@dataclass(frozen=True, slots=True)
class Roles:
    """The URLs of each role."""

    redis: dict[str, str]
    postgres: dict[str, str]


@pytest.fixture(name="roles", params=["", "blue"], ids=["no namespace", "a namespace"])
def _roles(deployment: Deployment, request: pytest.FixtureRequest) -> Iterator[Roles]:
    """The deployment has the worker's roles."""
    environment = deployment.environment
    stores = environment["WORKER_REDIS_URL"], environment["WORKER_DATABASE_URL"]
    with redis_users(stores[0], request.param) as users, postgres_roles(stores[1]) as roles:
        deployment.environment = environment | {
            "WORKER_REDIS_URL": users["worker"],
            "WORKER_DATABASE_URL": roles["token_worker"],
            "WORKER_NAMESPACE": request.param,
        }
        yield Roles(users, roles)
        deployment.close()


@contextmanager
def only(deployment: Deployment, **environment: str) -> Iterator[None]:
    """Commands inside have these settings, the namespace, and no others."""
    before = deployment.environment
    deployment.environment = {
        "WORKER_NAMESPACE": before["WORKER_NAMESPACE"],
        "WORKER_SWEEP_INTERVAL": "1",
    } | environment
    yield
    deployment.environment = before


def test_each_process_runs_under_its_role(deployment: Deployment, redis_url: str, roles: Roles) -> None:
    """Worker, beat with its answers to pings, Flower, exporter, both kinds of consumers, and an operator's commands."""
    with only(deployment, WORKER_DATABASE_URL=roles.postgres[OWNER]):
        assert deployment.cli("migrate").stdout == "already up to date\n"
    deployment.add_due_accounts(ANN, BOB, *emails(2))
    worker = deployment.worker()
    with only(deployment, WORKER_REDIS_URL=roles.redis["beat"]):
        beat = deployment.celery("beat", "--enable-remote-control", "--hostname=beat@%h")
    with only(deployment, WORKER_REDIS_URL=roles.redis["flower"]):
        flower = Flower(deployment, FLOWER_BASIC_AUTH=LOGIN)
    processes = [worker, beat, flower.process]
    wait_for(deployment.all_refreshed, about="every account to be refreshed", processes=processes)

    with only(
        deployment,
        WORKER_REDIS_URL=roles.redis["exporter"],
        WORKER_DATABASE_URL=roles.postgres["token_worker_exporter"],
    ):
        exporter = deployment.start([str(BIN / "token-worker"), "exporter", "--port", "0"])
        processes.append(exporter)
        wait_for(lambda: "Metrics: " in exporter.output(), about="the exporter to listen", processes=processes)
    page = urllib3.request("GET", exporter.output().split("Metrics: ")[1].split()[0], timeout=HANG_LIMIT).data.decode()
    access = deployment.cli("keygen", "--access").stdout.strip()
    with only(deployment, WORKER_REDIS_URL=roles.redis["reader"], WORKER_ACCESS_KEYS=access):
        reader = deployment.run([sys.executable, "-c", _READER, ANN])
    with only(
        deployment,
        WORKER_REDIS_URL=roles.redis["reader"],
        WORKER_ACCESS_KEYS=access,
        WORKER_DATABASE_URL=roles.postgres["token_worker_reader"],
    ):
        selecting = deployment.run([sys.executable, "-c", _READER, BOB])
    full = {name: value for name, value in deployment.environment.items() if name.startswith("WORKER_")}
    with only(deployment, **full | {"WORKER_REDIS_URL": roles.redis["consumer"]}):
        consumer = deployment.run([sys.executable, "-c", _READER, emails(1)[0]])
    ping = deployment.run([str(BIN / "celery"), "-A", "worker", "inspect", "ping"])

    assert json.loads(reader.stdout or "null") == [2, 3], reader.stderr
    assert json.loads(consumer.stdout or "null") == [2, 3], consumer.stderr
    assert json.loads(selecting.stdout or "null") == [2, 3], selecting.stderr
    assert 'token_worker_store_up{store="postgres"} 1.0' in page
    assert 'token_worker_store_up{store="redis"} 1.0' in page
    assert 'token_worker_store_up{store="broker"} 1.0' in page
    assert {name.partition("@")[0] for name in flower.json("/api/workers?refresh=true")} == {"worker"}
    assert len(flower.json("/api/queues/length")["active_queues"]) == 3
    assert "beat@" in ping.stdout
    for command in (["status"], ["list"], ["show", ANN], ["pause", ANN], ["resume", ANN], ["rotate-keys"], ["doctor"]):
        done = deployment.cli(*command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert denied(redis_url) == []
