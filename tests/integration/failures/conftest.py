"""Mailboxes of an installation with two processes, and its command line."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.factories import TurnedClock
from tests.integration.failures.mailboxes import Mailboxes
from worker.bootstrap import Services, bootstrap
from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Emulator
from worker.settings import Settings


@pytest.fixture(name="mailboxes")
def _mailboxes(services: Services, emulator: Emulator, clock: TurnedClock, settings: Settings) -> Mailboxes:
    return Mailboxes(services=services, emulator=emulator, clock=clock, settings=settings)


@pytest.fixture(name="rival")
def _rival(settings: Settings, clock: TurnedClock) -> Iterator[Services]:
    """Another process, on the same stores."""
    rival = bootstrap(settings, utcnow=clock)
    yield rival
    rival.close()


@pytest.fixture(name="command")
def _command(settings: Settings) -> Callable[..., str]:
    """`token-worker`, in a process of its own, by the real clock."""
    environment = os.environ | {
        "WORKER_DATABASE_URL": settings.database_url.get_secret_value(),
        "WORKER_REDIS_URL": settings.redis_url.get_secret_value(),
        "WORKER_ENCRYPTION_KEYS": settings.encryption_keys.get_secret_value(),
        "WORKER_CLIENT_ID": DEFAULT_CLIENT_ID,
        "WORKER_CLIENT_SECRET": DEFAULT_CLIENT_SECRET,
    }

    def command(*arguments: str) -> str:
        argv = [sys.executable, "-m", "worker", *arguments]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=True, timeout=30).stdout

    return command
