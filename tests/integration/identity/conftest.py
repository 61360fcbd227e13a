"""Real MSAL over real TLS: to the emulator, or to a server that says what it is told."""

from collections.abc import Callable, Iterator

import pytest

from tests.integration.identity.asking import opened
from tests.integration.identity.verbatim import Verbatim, verbatim
from worker.identity import Identity


@pytest.fixture(scope="session", name="begin_to_say")
def _begin_to_say(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Verbatim]]:
    with verbatim(tmp_path_factory.mktemp("verbatim")) as begin:
        yield begin


@pytest.fixture(name="says")
def _says(begin_to_say: Callable[[], Verbatim]) -> Verbatim:
    return begin_to_say()


@pytest.fixture(name="identity")
def _identity(says: Verbatim) -> Iterator[Identity]:
    with opened(says.authority, says.ca_bundle) as identity:
        yield identity
