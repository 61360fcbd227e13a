"""A fleet without trouble, as heartbeats in Redis show it; no process runs."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.deployment import Deployment
from worker import __version__
from worker.clock import utcnow
from worker.domain.heartbeat import Heartbeat, Role

Puts = Callable[..., None]


@pytest.fixture(name="put")
def _put(deployment: Deployment) -> Puts:
    """Write the heartbeat of a process."""

    def put(role: Role, **changes: Any) -> None:
        now = utcnow()
        given: dict[str, Any] = {"host": "web-1", "pid": 4711, "version": __version__, "started_at": now, "at": now}
        if role is Role.WORKER:
            given |= {"key_ids": ("k1",), "queues": ("ondemand", "sweep", "refresh")}
        with deployment.services() as services:
            services.heartbeats.put(Heartbeat(role=role, **(given | changes)))

    return put


@pytest.fixture(name="running")
def _running(deployment: Deployment, put: Puts) -> Deployment:
    """A fleet without trouble: beat and a worker have just written heartbeats, a sweep has ended."""
    put(Role.BEAT)
    put(Role.WORKER)
    with deployment.services() as services:
        services.heartbeats.note_sweep()
    return deployment
