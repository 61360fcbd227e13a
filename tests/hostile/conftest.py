"""The installation of the integration tests, with an attacker who controls one of its parts."""

from tests.e2e.conftest import _commands, _deployment, _server
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
    "_commands",
    "_deployment",
    "_emulator",
    "_installation",
    "_relay",
    "_relay_server",
    "_server",
    "_services",
    "_settings",
    "_shared_server",
]
