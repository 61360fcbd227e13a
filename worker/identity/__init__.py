"""Asks Microsoft through MSAL and hands back an Outcome. Keeps no token, retries nothing, and knows no account.

MSAL builds and signs the request; the HTTP below it is ours, because MSAL's own has no timeout, caches tokens of every
account it ever saw, hides Retry-After, and raises *after* a refresh token was rotated if anything else in the answer is
odd. So the answer is read off the wire and classified from there, and MSAL's opinion of it cannot lose a token.
"""

from worker.identity.client import DeviceFlow, Identity
from worker.identity.registration import Registration

__all__ = ["DeviceFlow", "Identity", "Registration"]
