"""Mailboxes of an installation with two processes, its command line, and its stores to be stopped."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.factories import TurnedClock
from tests.integration.failures.mailboxes import ANN, LIFETIME, Mailboxes, emails
from worker.bootstrap import Services, bootstrap
from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Emulator
from worker.devkit.stack import Stack
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


@pytest.fixture(name="fifty")
def _fifty(mailboxes: Mailboxes) -> list[str]:
    """Fifty mailboxes, all due."""
    everybody = emails(50)
    mailboxes.sign_in(*everybody)
    return everybody


@pytest.fixture(name="stores")
def _stores(services: Services, stack: Stack) -> Iterator[Stack]:
    """Both servers, to be stopped: they run again when the test is over, whatever it did."""
    yield stack
    stack.valkey.start()
    stack.postgres.start()


@pytest.fixture(name="signed_in")
def _signed_in(mailboxes: Mailboxes, clock: TurnedClock) -> Mailboxes:
    """Ann has a token in both stores; an hour later it is dead, and nobody has looked."""
    mailboxes.sign_in(ANN, strict=True, access_token_lifetime=LIFETIME)
    mailboxes.refresh_due()
    clock.advance(hours=1)
    return mailboxes


@pytest.fixture(name="outage")
def _outage(signed_in: Mailboxes, stores: Stack) -> Mailboxes:
    """Now Postgres is away too."""
    stores.postgres.stop()
    return signed_in
