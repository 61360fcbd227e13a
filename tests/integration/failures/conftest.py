"""Further processes of the installation, its command line, and the outages that tests start with."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.constants import ANN, HOUR
from tests.factories import emails
from tests.integration.installation import Installation
from tests.waiting import HANG_LIMIT
from worker.bootstrap import Services
from worker.devkit.stack import Stack


@pytest.fixture(name="other_process")
def _other_process(installation: Installation) -> Services:
    return installation.another_process()


@pytest.fixture(name="without_microsoft")
def _without_microsoft(installation: Installation) -> Services:
    """A process that cannot reach Microsoft, while the other processes can."""
    return installation.another_process(authority="https://localhost:9/common")


@pytest.fixture(name="without_postgres")
def _without_postgres(installation: Installation) -> Services:
    """A process that cannot reach Postgres, while the other processes can."""
    return installation.another_process(database_url="postgresql://user@127.0.0.1:9/nothing")


@pytest.fixture(name="command")
def _command(installation: Installation) -> Callable[..., str]:
    """Runs `token-worker` in a process of its own, on the real clock."""
    settings = {f"WORKER_{name.upper()}": value for name, value in installation.plain_settings().items()}
    environment = os.environ | settings

    def command(*arguments: str) -> str:
        argv = [sys.executable, "-m", "worker", *arguments]
        finished = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True, timeout=HANG_LIMIT)
        return finished.stdout

    return command


@pytest.fixture(name="fifty")
def _fifty(installation: Installation) -> list[str]:
    """Fifty mailboxes, all due."""
    mailboxes = emails(50)
    installation.sign_in(*mailboxes, due=True)
    return mailboxes


@pytest.fixture(name="signed_in")
def _signed_in(installation: Installation) -> Installation:
    """Ann has a token in both stores. It has expired an hour later, and no process has refreshed it yet."""
    installation.sign_in(ANN, due=True, strict=True, lifetime=HOUR)
    installation.refresh_due()
    installation.clock.advance(hours=1)
    return installation


@pytest.fixture(name="outage")
def _outage(signed_in: Installation, stores: Stack) -> Installation:
    """As ``signed_in``, and Postgres is down."""
    stores.postgres.stop()
    return signed_in
