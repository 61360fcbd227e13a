"""An exporter at the stores of the installation."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.integration.exporter.scraped import Exporter
from tests.integration.installation import Installation
from worker.settings import ExporterSettings


@pytest.fixture(name="new_exporter")
def _new_exporter(installation: Installation) -> Iterator[Callable[..., Exporter]]:
    """Makes further exporters; with other settings, if given."""
    stores = {
        "database_url": installation.settings.database_url.get_secret_value(),
        "redis_url": installation.settings.redis_url.get_secret_value(),
    }
    with ExitStack() as cleanup:

        def make(**settings: Any) -> Exporter:
            made = Exporter(ExporterSettings.model_validate(stores | settings), installation.clock)
            cleanup.callback(made.close)
            return made

        yield make


@pytest.fixture(name="exporter")
def _exporter(new_exporter: Callable[..., Exporter]) -> Exporter:
    return new_exporter()
