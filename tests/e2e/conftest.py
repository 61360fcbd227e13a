"""A deployment with the real clock, embedded stores and the emulator over real TLS. No process is started yet."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.commands import Commands
from tests.e2e.deployment import Deployment, inherited
from tests.e2e.foreground import open_directory
from tests.waiting import HANG_LIMIT
from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, EmulatorServer
from worker.vault import generate_key


@pytest.fixture(name="server")
def _server(tmp_path: Path) -> Iterator[EmulatorServer]:
    with EmulatorServer(tmp_path) as server:
        yield server


@pytest.fixture(scope="session", name="commands")
def _commands() -> Iterator[Commands]:
    with closing(Commands(inherited(), patience=HANG_LIMIT)) as commands:
        yield commands


@pytest.fixture(name="deployment")
def _deployment(
    tmp_path: Path, server: EmulatorServer, database_url: str, redis_url: str, commands: Commands
) -> Iterator[Deployment]:
    environment = {
        "WORKER_DATABASE_URL": database_url,
        "WORKER_REDIS_URL": redis_url,
        "WORKER_ENCRYPTION_KEYS": generate_key("k1"),
        "WORKER_CLIENT_ID": DEFAULT_CLIENT_ID,
        "WORKER_CLIENT_SECRET": DEFAULT_CLIENT_SECRET,
        "WORKER_AUTHORITY": server.authority,
        "WORKER_CA_BUNDLE": str(server.ca_bundle),
        "WORKER_SWEEP_INTERVAL": "1",
    }
    deployment = Deployment(tmp_path, environment, server, commands)
    yield deployment
    deployment.close()


@pytest.fixture(name="directory")
def _directory() -> Iterator[Path]:
    with open_directory() as directory:
        yield directory
