"""Asks Microsoft through MSAL and hands back an Outcome. Keeps no token, retries nothing, and knows no account.

MSAL writes and signs each request; we send it, many at a time from one thread, and read the answer ourselves. MSAL's
own HTTP has no timeout and hides Retry-After, its cache keeps tokens of every account it ever saw, and it raises
*after* a refresh token was rotated if anything else in the answer is odd. What it does not see it cannot lose.
"""

from worker.identity.client import DeviceFlow, Identity, Question
from worker.identity.registration import Registration
from worker.identity.talks import Answered

__all__ = ["Answered", "DeviceFlow", "Identity", "Question", "Registration"]
