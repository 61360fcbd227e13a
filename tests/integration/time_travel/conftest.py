"""The installation on freezegun's clock, and a machine that moves the clock forward."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta

import pytest

import worker.celery
from tests.factories import NOW
from tests.integration.installation import Installation
from tests.integration.time_travel.travel import FrozenClock, Machine
from worker.celery import Worker

pytest.register_assert_rewrite("tests.integration.time_travel.checks")


@pytest.fixture(name="clock")
def _clock(request: pytest.FixtureRequest) -> FrozenClock:
    """It starts now, or at the instant that a test is parametrized with."""
    return FrozenClock(getattr(request, "param", NOW))


@pytest.fixture(name="installation")
def _installation(installation: Installation, clock: FrozenClock) -> Iterator[Installation]:
    """Time is frozen from here on. The servers have started and made their certificates before."""
    with clock:
        yield installation


@pytest.fixture(name="start")
def _start(
    installation: Installation, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[timedelta], Machine]]:
    """Starts beat and a worker with this sweep interval, configured from the environment as in production.

    Tests sign in first, because the schedule begins when the machine is started.
    """

    def start(sweep: timedelta) -> Machine:
        monkeypatch.setenv("WORKER_REDIS_URL", installation.settings.redis_url.get_secret_value())
        monkeypatch.setenv("WORKER_SWEEP_INTERVAL", str(sweep.total_seconds()))
        app = Worker()
        app.services = installation.services
        return installation.cleanup.enter_context(closing(Machine(app, clock)))

    yield start
    worker.celery.app.set_current()
