"""What nobody has foreseen: a row that no import would have let in, or a bug. It is the trouble of one account."""

import traceback

import structlog

from worker.domain.outcome import Outcome, Scope, Transient

log = structlog.get_logger(__name__)


def foreseen(outcome: Outcome | Exception, email: str) -> Outcome:
    """The outcome; of an exception, one that makes the account back off like a failing one, while the others go on."""
    if not isinstance(outcome, Exception):
        return outcome
    trace = "".join(traceback.format_exception(outcome))  # as text: exc_info may be shown with locals, our keys
    log.error("Refresh failed unexpectedly", email=email, error=type(outcome).__name__, exception=trace)
    return Transient(code="internal_error", scope=Scope.SERVICE)
