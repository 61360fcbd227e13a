"""Beat and workers say that they live, and stop saying it when they end."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.e2e.deployment import Deployment
from tests.waiting import wait_for
from worker import __version__
from worker.cache import HeartbeatStore, connect
from worker.domain.heartbeat import Heartbeat, Role
from worker.vault import generate_key

Live = Callable[[], list[Heartbeat]]


@pytest.fixture(name="live")
def _live(deployment: Deployment) -> Iterator[Live]:
    with closing(connect(deployment.environment["WORKER_REDIS_URL"])) as redis:
        store = HeartbeatStore(redis)
        yield lambda: [process.heartbeat for process in store.live()]


def test_beat_and_workers_have_heartbeats(deployment: Deployment, live: Live) -> None:
    keys = f"{generate_key('k2')},{deployment.environment['WORKER_ENCRYPTION_KEYS']}"
    worker = deployment.worker("worker", "-Q", "ondemand,sweep", WORKER_ENCRYPTION_KEYS=keys)
    beat = deployment.celery("beat")

    wait_for(lambda: len(live()) == 2, about="two heartbeats", processes=[worker, beat])

    of_beat, of_worker = live()
    assert (of_beat.role, of_beat.pid, of_beat.key_ids, of_beat.queues) == (Role.BEAT, beat.pid, (), ())
    assert (of_worker.role, of_worker.pid) == (Role.WORKER, worker.pid)
    assert of_worker.key_ids == ("k2", "k1")
    assert set(of_worker.queues) == {"ondemand", "sweep"}
    assert of_worker.version == of_beat.version == __version__
    with deployment.services() as services:
        wait_for(services.heartbeats.since_sweep, about="a sweep", processes=[worker, beat])

    worker.stop()
    beat.stop()

    wait_for(lambda: live() == [], about="the end of the heartbeats")


def test_beat_in_a_worker_has_a_heartbeat(deployment: Deployment, live: Live) -> None:
    worker = deployment.worker("worker", "--beat")

    wait_for(lambda: len(live()) == 2, about="two heartbeats", processes=[worker])

    assert [each.role for each in live()] == [Role.BEAT, Role.WORKER]


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_other_pools_have_heartbeats(deployment: Deployment, live: Live, pool: str) -> None:
    worker = deployment.worker("worker", "--pool", pool)

    wait_for(live, about="a heartbeat", processes=[worker])

    assert live()[0].role is Role.WORKER
