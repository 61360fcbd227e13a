"""A pytest plugin for an application's own tests: the fixture ``microsoft_emulator``. Needs the extra `demo`.

pytest loads this module in every run of an environment that has the package, so it imports nothing until it is used.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from worker.devkit.emulator import EmulatorServer


@pytest.fixture
def microsoft_emulator(tmp_path: Path) -> "Iterator[EmulatorServer]":
    """An emulator of Microsoft's identity platform, served over TLS on loopback, without users.

    ``environment`` has the settings for an application; ``emulator`` signs users in, revokes and injects faults.
    """
    try:
        from worker.devkit.emulator import EmulatorServer  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        pytest.fail(f"{missing.name} is not installed: pip install 'token-refresh-worker[demo]'", pytrace=False)
    with EmulatorServer(tmp_path) as server:
        yield server
