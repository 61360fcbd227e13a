"""A Redis Cluster is refused with the reason. A worker would fail at its first read of several keys."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.deployment import Deployment
from tests.waiting import HANG_LIMIT
from worker.devkit.stack import ValkeyServer


class Cluster(ValkeyServer):
    def _command(self, port: int) -> list[str]:
        return [*super()._command(port), "--cluster-enabled", "yes"]


@pytest.fixture(name="cluster")
def _cluster(tmp_path: Path) -> Iterator[str]:
    server = Cluster(tmp_path / "cluster", durable=False)
    server.start()
    yield server.url
    server.stop()


def test_a_worker_does_not_start_on_a_cluster(deployment: Deployment, cluster: str) -> None:
    process = deployment.celery("worker", WORKER_REDIS_URL=cluster)

    assert process.wait(HANG_LIMIT) == 4

    assert process.output().startswith("Configuration error: WORKER_REDIS_URL leads to a Redis Cluster")
    assert "use one primary" in process.output()
    assert "Traceback" not in process.output()
