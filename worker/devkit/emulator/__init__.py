"""A Microsoft identity platform for development, tests and the demo: real HTTP over real TLS, on loopback.

It must never be exposed beyond loopback: anybody who reaches it can sign in as anybody, and its admin
API under `/_emulator/` hands out tokens and breaks the service on request.
"""

from worker.devkit.emulator.accounts import Grant, Lifetime
from worker.devkit.emulator.core import Emulator
from worker.devkit.emulator.exchange import Answer, Asked
from worker.devkit.emulator.faults import Fault, Hang, RawAnswer, Reset, Tampered, fault_named
from worker.devkit.emulator.oauth_errors import OAuthError, oauth_error
from worker.devkit.emulator.registrations import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Registration
from worker.devkit.emulator.server import EmulatorServer
from worker.devkit.emulator.statistics import AccountStatistics, Statistics

__all__ = [
    "DEFAULT_CLIENT_ID",
    "DEFAULT_CLIENT_SECRET",
    "AccountStatistics",
    "Answer",
    "Asked",
    "Emulator",
    "EmulatorServer",
    "Fault",
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
