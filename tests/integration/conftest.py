"""Services in this process on real stores (tests/stores.py), a clock turned by hand, the emulator over real TLS."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factories import TurnedClock
from worker.bootstrap import Services, bootstrap
from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Emulator, EmulatorServer
from worker.settings import Settings
from worker.vault import generate_key

pytest.register_assert_rewrite("tests.integration.time_travel_world")


@pytest.fixture(name="clock")
def _clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture(name="emulator")
def _emulator(clock: TurnedClock) -> Emulator:
    return Emulator(clock=clock)


@pytest.fixture(name="server")
def _server(emulator: Emulator, tmp_path: Path) -> Iterator[EmulatorServer]:
    with EmulatorServer(tmp_path, emulator) as server:
        yield server


@pytest.fixture(name="settings")
def _settings(database_url: str, redis_url: str, server: EmulatorServer) -> Settings:
    return Settings.model_validate(
        {
            "database_url": database_url,
            "redis_url": redis_url,
            "encryption_keys": generate_key("k1"),
            "client_id": DEFAULT_CLIENT_ID,
            "client_secret": DEFAULT_CLIENT_SECRET,
            "authority": server.authority,
            "ca_bundle": server.ca_bundle,
        }
    )


@pytest.fixture(name="services")
def _services(settings: Settings, clock: TurnedClock) -> Iterator[Services]:
    services = bootstrap(settings, utcnow=clock)
    yield services
    services.close()
