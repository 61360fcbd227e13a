"""Services in this process on real stores (tests/stores.py), a clock turned by hand, the emulator over real TLS."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.factories import TurnedClock
from tests.integration.emulator_relay import EmulatorRelay
from tests.integration.installation import Installation
from worker.bootstrap import Services, bootstrap
from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Emulator, EmulatorServer
from worker.devkit.stack import Stack
from worker.settings import Settings
from worker.vault import generate_key


@pytest.fixture(name="clock")
def _clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture(name="emulator")
def _emulator(clock: TurnedClock) -> Emulator:
    return Emulator(clock=clock)


@pytest.fixture(name="server")
def _server(emulator: Emulator, tmp_path: Path) -> Iterator[EmulatorServer]:
    """A server of the test's own, so that the test may stop it."""
    with EmulatorServer(tmp_path, emulator) as server:
        yield server


@pytest.fixture(scope="session", name="relay")
def _relay() -> EmulatorRelay:
    return EmulatorRelay()


@pytest.fixture(scope="session", name="relay_server")
def _relay_server(relay: EmulatorRelay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorServer]:
    with EmulatorServer(tmp_path_factory.mktemp("relay"), relay) as server:
        yield server


@pytest.fixture(name="shared_server")
def _shared_server(relay_server: EmulatorServer, relay: EmulatorRelay, emulator: Emulator) -> EmulatorServer:
    """The server of the whole run, with the test's emulator behind it."""
    relay.forward_to(emulator)
    return relay_server


@pytest.fixture(name="settings")
def _settings(database_url: str, redis_url: str, shared_server: EmulatorServer) -> Settings:
    return Settings.model_validate(
        {
            "database_url": database_url,
            "redis_url": redis_url,
            "encryption_keys": generate_key("k1"),
            "client_id": DEFAULT_CLIENT_ID,
            "client_secret": DEFAULT_CLIENT_SECRET,
            "authority": shared_server.authority,
            "ca_bundle": shared_server.ca_bundle,
            "mail_hosts": "imap.example,smtp.example,pop.example",
        }
    )


@pytest.fixture(name="services")
def _services(settings: Settings, clock: TurnedClock) -> Iterator[Services]:
    services = bootstrap(settings, utcnow=clock)
    yield services
    services.close()


@pytest.fixture(name="installation")
def _installation(
    services: Services, emulator: Emulator, relay: EmulatorRelay, clock: TurnedClock, settings: Settings
) -> Iterator[Installation]:
    with capture_logs() as logs, ExitStack() as cleanup:
        yield Installation(
            services=services,
            emulator=emulator,
            relay=relay,
            clock=clock,
            settings=settings,
            cleanup=cleanup,
            logs=logs,
        )
    sys.stdout.writelines(f"{entry}\n" for entry in logs)  # pytest shows them if the test has failed


@pytest.fixture(name="stores")
def _stores(installation: Installation, stack: Stack) -> Iterator[Stack]:
    """Both servers, for a test to stop. They are started again after the test, even if it fails."""
    yield stack
    stack.valkey.start()
    stack.postgres.start()
