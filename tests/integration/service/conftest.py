"""One process's services in a house of their own.

The emulator's server is shared and emptied before each test: to make it anew costs more than most tests.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from structlog.testing import capture_logs

from tests.factories import TurnedClock
from tests.integration.service.house import House
from tests.integration.service.stage import Stage
from worker.bootstrap import Services
from worker.client import TokenClient
from worker.devkit.emulator import Emulator, EmulatorServer
from worker.devkit.stack import Stack
from worker.settings import Settings


@pytest.fixture(scope="session", name="stage")
def _stage() -> Stage:
    return Stage()


@pytest.fixture(scope="session", name="stage_server")
def _stage_server(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorServer]:
    with EmulatorServer(tmp_path_factory.mktemp("stage"), stage) as server:
        yield server


@pytest.fixture(name="server")
def _server(stage_server: EmulatorServer, stage: Stage, emulator: Emulator) -> EmulatorServer:
    stage.enter(emulator)
    return stage_server


@pytest.fixture(name="house")
def _house(
    services: Services, emulator: Emulator, stage: Stage, clock: TurnedClock, settings: Settings
) -> Iterator[House]:
    with capture_logs() as logs, ExitStack() as undo:
        yield House(
            services=services, emulator=emulator, stage=stage, clock=clock, settings=settings, undo=undo, logs=logs
        )
    sys.stdout.writelines(f"{entry}\n" for entry in logs)  # pytest shows them if the test has failed


@pytest.fixture(name="client")
def _client(house: House) -> Iterator[TokenClient]:
    """A consumer with a memory of its own, next to the house's services."""
    with TokenClient(house.settings, utcnow=house.clock) as client:
        yield client


@pytest.fixture(name="stores")
def _stores(house: House, stack: Stack) -> Iterator[Stack]:
    """Both servers, to be harmed: they run again when the test is over, whatever it did."""
    yield stack
    stack.valkey.start()
    stack.postgres.start()
