"""Refreshes tokens at Microsoft's identity platform and returns an Outcome for each.

It stores no token, retries nothing, and knows no account. MSAL writes and signs each request; libcurl sends the
requests, many at a time from one thread, and the domain reads the responses. MSAL sees none of them, because its own
HTTP has no timeout and hides Retry-After, its cache keeps the tokens of every account, and it raises *after* a refresh
token was rotated if anything else in the response is odd.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.identity.client import Identity
    from worker.identity.device_flow import DeviceFlow
    from worker.identity.registration import Registration
    from worker.identity.token_request import RefreshAttempt, TokenRequest

__all__ = ["DeviceFlow", "Identity", "RefreshAttempt", "Registration", "TokenRequest"]

_MODULES = {
    "DeviceFlow": "device_flow",
    "Identity": "client",
    "RefreshAttempt": "token_request",
    "Registration": "registration",
    "TokenRequest": "token_request",
}


def __getattr__(name: str) -> Any:
    """Import the name at its first use: the settings need a registration only, and not MSAL, a tenth of a second."""
    if name not in _MODULES:
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
