"""An emulator of the Microsoft identity platform for development, tests and the demo, over real TLS on loopback.

Never expose it beyond loopback. Every client can sign in as any user, and the admin API under `/_emulator/` hands out
tokens and injects faults.
"""

from worker.devkit.emulator.accounts import Grant, Lifetime
from worker.devkit.emulator.core import Emulator
from worker.devkit.emulator.exchange import EmulatorRequest, EmulatorResponse
from worker.devkit.emulator.faults import Fault, Hang, RawAnswer, Reset, Tampered, fault_named
from worker.devkit.emulator.oauth_errors import OAuthError, oauth_error
from worker.devkit.emulator.registrations import (
    DEFAULT_CLIENT_ID,
    DEFAULT_CLIENT_SECRET,
    FederatedCredential,
    Registration,
)
from worker.devkit.emulator.server import EmulatorServer
from worker.devkit.emulator.statistics import AccountStatistics, Statistics

__all__ = [
    "DEFAULT_CLIENT_ID",
    "DEFAULT_CLIENT_SECRET",
    "AccountStatistics",
    "Emulator",
    "EmulatorRequest",
    "EmulatorResponse",
    "EmulatorServer",
    "Fault",
    "FederatedCredential",
    "Grant",
    "Hang",
    "Lifetime",
    "OAuthError",
    "RawAnswer",
    "Registration",
    "Reset",
    "Statistics",
    "Tampered",
    "fault_named",
    "oauth_error",
]
