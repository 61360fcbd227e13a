"""A consumer next to the installation."""

from collections.abc import Iterator

import pytest

from tests.integration.installation import Installation
from worker.client import TokenClient


@pytest.fixture(name="client")
def _client(installation: Installation) -> Iterator[TokenClient]:
    """A consumer with a token cache of its own, next to the installation's services."""
    with TokenClient(installation.settings, utcnow=installation.clock) as client:
        yield client
