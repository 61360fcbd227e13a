"""Every test starts without WORKER_* variables, and with a fixed instant at hand."""

import os
from datetime import datetime

import pytest
from hypothesis import settings

from tests.factories import NOW

pytest_plugins = ["tests.stores"]

# Only `make chaos` sets the variable: the suite takes a quarter of an hour.
collect_ignore = [] if "CHAOS_ROUNDS" in os.environ else ["chaos"]

# An example has no deadline, because its duration depends on the machine more than on the code.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("WORKER_", "FLOWER_", "CELERY_"))]:
        monkeypatch.delenv(name)


@pytest.fixture(name="now")
def _now() -> datetime:
    return NOW
