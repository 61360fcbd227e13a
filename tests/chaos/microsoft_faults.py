"""Faults of Microsoft. Each function injects its fault once and returns the number of affected responses."""

from datetime import timedelta
from itertools import cycle, islice

from tests.chaos.fleet import CONNECTIONS, MAILBOXES, NEXT_SECRET, Fleet, until
from tests.waiting import wait_for
from worker.devkit.emulator import (
    DEFAULT_CLIENT_SECRET,
    Fault,
    Hang,
    RawAnswer,
    Registration,
    Reset,
    fault_named,
    oauth_error,
)

_TOO_LATE = 16.0  # seconds; the worker waits for 15
_PAUSE = 1.5  # seconds without a request; longer than from sweep to sweep
_MALFORMED = ("html-200", "truncated-json", "json-array", "wrong-types", "odd-error", "html-502", "html-403")
_ODD_GRANTS = ("garbage-id-token", "garbage-client-info", "no-client-info")


def throttled(fleet: Fleet) -> int:
    return _storm(fleet, RawAnswer(b"Too Many Requests", 429, "text/plain", retry_after=1))


def throttled_without_retry_after(fleet: Fleet) -> int:
    return _storm(fleet, RawAnswer(b"Too Many Requests", 429, "text/plain"))


def server_errors(fleet: Fleet) -> int:
    return _storm(fleet, oauth_error("50000"), oauth_error("90033"), oauth_error("90012"))


def malformed(fleet: Fleet) -> int:
    return _storm(fleet, *map(fault_named, _MALFORMED))


def connections_reset(fleet: Fleet) -> int:
    return _storm(fleet, Reset())


def odd_grants(fleet: Fleet) -> int:
    """Grants with valid tokens and other fields that are malformed. The tokens must be stored."""
    return _for_all(fleet, *map(fault_named, _ODD_GRANTS))


def slow_responses(fleet: Fleet) -> int:
    return _for_all(fleet, Hang(0.7), Hang(0.7, after=True))


def lost_responses(fleet: Fleet) -> int:
    """Grants whose response never arrives. No worker can store their tokens."""
    return _storm(fleet, Reset(after=True))


def late_responses(fleet: Fleet) -> int:
    before = fleet.emulator.injected
    affected = fleet.emails[:CONNECTIONS]
    for email in affected:
        fleet.emulator.add_fault(Hang(_TOO_LATE, after=True), email, times=1)
    fleet.make_due(affected)
    until(lambda: fleet.emulator.injected == before + len(affected), about="the requests")
    return len(affected)


def loop_detected(fleet: Fleet) -> int:
    """AADSTS50196 to every account, as `invalid_grant`. It says nothing about the grant."""
    return _for_all(fleet, oauth_error("50196", retry_after=1))


def loop_detected_for_long(fleet: Fleet) -> int:
    """Without Retry-After the worker leaves the accounts alone for half an hour. The operator refreshes them sooner."""
    affected = fleet.emails[:4]
    for email in affected:
        fleet.emulator.add_fault(oauth_error("50196"), email, times=1)
    before = fleet.emulator.injected
    fleet.make_due(affected)
    until(lambda: fleet.emulator.injected == before + len(affected), about="the requests")
    fleet.pass_time(5)  # the least time between two requests of an account, even by an operator
    for email in affected:
        refreshed = fleet.deployment.cli("refresh", email)
        assert refreshed.returncode == 0, refreshed.stderr
    return len(affected)


def secret_expired(fleet: Fleet) -> int:
    """Neither secret is valid any more, until the operator corrects the registration."""
    _accept(fleet, "a-secret-that-is-not-set")
    fleet.make_due()
    wait_for(fleet.services.events.breakers, about="the breaker to open", processes=fleet.processes())
    _accept(fleet, DEFAULT_CLIENT_SECRET)
    return 1


def secret_rotated(fleet: Fleet) -> int:
    """The old secret is deleted at Microsoft, which knows the next one; then the other way round."""
    _accept(fleet, NEXT_SECRET)
    fleet.cycle()
    _accept(fleet, DEFAULT_CLIENT_SECRET)
    fleet.cycle()
    return 2


def clock_stepped(fleet: Fleet) -> int:
    """Microsoft's clock is five minutes ahead of the worker's, five minutes behind, and right again."""
    for minutes in (5, -5, 0):
        fleet.emulator.step(timedelta(minutes=minutes))
        fleet.cycle()
    return 3


def reconnected_in_flight(fleet: Fleet) -> int:
    """Users sign in again while a refresh of the old grant is in flight."""
    affected = fleet.emails[:CONNECTIONS]
    for email in affected:
        fleet.emulator.add_fault(Hang(1.0, after=True), email, times=1)
    before = fleet.emulator.injected
    fleet.make_due(affected)
    until(lambda: fleet.emulator.injected == before + len(affected), about="the requests")
    fleet.sign_in(affected)
    return len(affected)


def _storm(fleet: Fleet, *faults: Fault) -> int:
    """Every response is bad, until there was one per mailbox, or the breaker has stopped the requests."""
    before, emulator = fleet.emulator.injected, fleet.emulator
    for fault in islice(cycle(faults), MAILBOXES):
        emulator.add_fault(fault, times=1)
    fleet.make_due()
    try:
        until(lambda: emulator.injected > before, about="the first request")
        until(
            lambda: emulator.injected == before + MAILBOXES or emulator.idle(seconds=_PAUSE),
            about="the end of the storm",
        )
    finally:
        emulator.clear_faults()
    return emulator.injected - before


def _for_all(fleet: Fleet, *faults: Fault) -> int:
    """One bad response for each mailbox."""
    before = fleet.emulator.injected
    for email, fault in zip(fleet.emails, cycle(faults), strict=False):
        fleet.emulator.add_fault(fault, email, times=1)
    fleet.make_due()
    until(lambda: fleet.emulator.injected >= before + MAILBOXES, about="a request of every account")
    return MAILBOXES


def _accept(fleet: Fleet, secret: str) -> None:
    fleet.emulator.registrations.register(Registration(secrets=(secret,)))
