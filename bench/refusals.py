"""The ways in which Microsoft refuses a part of a fleet, for the simulation of the circuit breaker."""

from dataclasses import dataclass

from worker.devkit.emulator import Fault, RawAnswer, fault_named, oauth_error

_UNLISTED = "5099990"  # a code of no table


@dataclass(frozen=True, slots=True)
class Refusal:
    """``is_tenant``: all refused accounts are of one tenant, and no other accounts are."""

    name: str
    fault: Fault
    is_tenant: bool = False


REFUSALS = (
    Refusal("unlisted code, invalid_request", oauth_error(_UNLISTED, error="invalid_request")),
    Refusal("unlisted code, invalid_client", oauth_error(_UNLISTED, error="invalid_client", status=401)),
    Refusal("unlisted code, unauthorized_client", oauth_error(_UNLISTED, error="unauthorized_client")),
    Refusal("access_denied", RawAnswer(b'{"error": "access_denied"}', 400)),
    Refusal("90023, with and without the secret", oauth_error("90023")),
    Refusal("9002327, grant of a SPA", oauth_error("9002327")),
    Refusal("53003, policy of one tenant", oauth_error("53003"), is_tenant=True),
    Refusal("7000112, app disabled in one tenant", oauth_error("7000112"), is_tenant=True),
    Refusal("7000215, secret refused for one tenant", oauth_error("7000215"), is_tenant=True),
    Refusal("50194, authority refused for one tenant", oauth_error("50194"), is_tenant=True),
    Refusal("429 for one tenant, an hour", RawAnswer(b"", 429, retry_after=3600), is_tenant=True),
    Refusal("90055 for one tenant, a minute", oauth_error("90055"), is_tenant=True),
    Refusal("503 for some accounts", fault_named("html-503")),
    Refusal("server_error for some accounts", RawAnswer(b'{"error": "server_error"}', 400)),
    Refusal("malformed JSON for some accounts", fault_named("truncated-json")),
    Refusal("connection reset for some accounts", fault_named("reset")),
)
