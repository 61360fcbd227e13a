"""RabbitMQ as the broker: beat, worker and a consumer's request, with Redis as the cache only.

Skipped if it is not installed.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.constants import ANN
from tests.e2e.deployment import Deployment
from tests.e2e.flower import free_port
from tests.factories import emails
from tests.waiting import wait_for
from worker.broker import ON_DEMAND, QueueDepths, TaskSender
from worker.devkit.stack.process import Process
from worker.domain.account import account_id

SERVER = shutil.which("rabbitmq-server", path="/usr/lib/rabbitmq/bin")

pytestmark = pytest.mark.skipif(SERVER is None, reason="rabbitmq-server is not installed")


@pytest.fixture(name="broker")
def _broker(tmp_path: Path) -> Iterator[str]:
    """The URL of a RabbitMQ of the test's own, on loopback, with the guest that it makes."""
    assert SERVER
    port, inner = free_port(), free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "RABBITMQ_NODENAME": f"test{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(inner),
        "RABBITMQ_MNESIA_BASE": str(tmp_path / "mnesia"),
        "RABBITMQ_LOG_BASE": str(tmp_path),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(tmp_path / "plugins"),
        "RABBITMQ_CONF_ENV_FILE": str(tmp_path / "none"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(free_port()),
    }
    process = Process([SERVER], log=tmp_path / "rabbitmq.log", environment=environment)
    try:
        wait_for(lambda: _listens(port), about="RabbitMQ to listen", processes=[process])
        yield f"amqp://guest:guest@127.0.0.1:{port}//"
    finally:
        process.kill()
        # The port mapper of Erlang is a daemon, which outlives its node.
        subprocess.run(["epmd", "-kill"], env=environment, capture_output=True, check=False)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_fleet_works_with_rabbitmq(deployment: Deployment, broker: str, redis_url: str) -> None:
    """No message is in Redis."""
    deployment.environment["WORKER_BROKER_URL"] = broker
    deployment.add_due_accounts(*emails(3))
    processes = [deployment.worker(), deployment.celery("beat")]
    wait_for(deployment.all_refreshed, about="every account to be refreshed", processes=processes)

    deployment.add_due_accounts(ANN)
    sender = TaskSender(broker)
    sender.request_refresh(account_id(ANN), min_ttl=None, rejected=None)
    sender.close()
    wait_for(lambda: "refresh_account" in processes[0].output(), about="a consumer's request", processes=processes)
    depths = QueueDepths(broker)

    assert depths.read([ON_DEMAND]) == {ON_DEMAND: 0}
    depths.close()
    with redis.Redis.from_url(redis_url) as client:
        assert not client.exists("ondemand", "sweep", "refresh", "unacked")
