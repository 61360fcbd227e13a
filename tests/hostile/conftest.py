"""The installation of the integration tests, with an attacker who controls one of its parts."""

from tests.integration.conftest import (
    _clock,
    _emulator,
    _installation,
    _relay,
    _relay_server,
    _services,
    _settings,
    _shared_server,
)

__all__ = [
    "_clock",
    "_emulator",
    "_installation",
    "_relay",
    "_relay_server",
    "_services",
    "_settings",
    "_shared_server",
]
