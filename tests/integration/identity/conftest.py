"""Real MSAL over real TLS: to the emulator, or to a server that sends scripted bytes."""

from collections.abc import Callable, Iterator

import pytest

from tests.integration.identity.identities import open_identity
from tests.integration.identity.scripted_server import ScriptedServer, scripted_servers
from worker.identity import Identity


@pytest.fixture(scope="session", name="new_script")
def _begin_to_say(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], ScriptedServer]]:
    with scripted_servers(tmp_path_factory.mktemp("verbatim")) as begin:
        yield begin


@pytest.fixture(name="scripted")
def _scripted(new_script: Callable[[], ScriptedServer]) -> ScriptedServer:
    return new_script()


@pytest.fixture(name="identity")
def _identity(scripted: ScriptedServer) -> Iterator[Identity]:
    with open_identity(scripted.authority, scripted.ca_bundle) as identity:
        yield identity
