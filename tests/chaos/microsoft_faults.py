"""What Microsoft may do to us. Each function strikes once and returns how many answers it has spoilt."""

from datetime import timedelta
from itertools import cycle, islice

from tests.chaos.fleet import MAILBOXES, NEXT_SECRET, THREADS, Fleet, until
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
_LULL = 1.5  # seconds; longer than from sweep to sweep
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
    """Granted, with something else in the answer that makes no sense: the tokens in it count."""
    return _for_everybody(fleet, *map(fault_named, _ODD_GRANTS))


def slow_answers(fleet: Fleet) -> int:
    return _for_everybody(fleet, Hang(0.7), Hang(0.7, after=True))


def lost_answers(fleet: Fleet) -> int:
    """Granted, and the answer never arrives. Nobody can keep what nobody was given."""
    return _storm(fleet, Reset(after=True))


def answers_too_late(fleet: Fleet) -> int:
    before = fleet.witness.injected
    who = fleet.emails[:THREADS]
    for email in who:
        fleet.witness.add_fault(Hang(_TOO_LATE, after=True), email, times=1)
    fleet.make_due(who)
    until(lambda: fleet.witness.injected == before + len(who), about="the questions")
    return len(who)


def loop_detected(fleet: Fleet) -> int:
    """AADSTS50196 to everybody, as `invalid_grant`; it says nothing about the grant."""
    return _for_everybody(fleet, oauth_error("50196", retry_after=1))


def loop_detected_for_long(fleet: Fleet) -> int:
    """Without Retry-After the accounts are left alone for half an hour; the operator does not want to wait."""
    struck = fleet.emails[:4]
    for email in struck:
        fleet.witness.add_fault(oauth_error("50196"), email, times=1)
    before = fleet.witness.injected
    fleet.make_due(struck)
    until(lambda: fleet.witness.injected == before + len(struck), about="the questions")
    fleet.pass_time(5)  # nobody should be asked about again any sooner, not even by an operator
    for email in struck:
        refreshed = fleet.deployment.cli("refresh", email)
        assert refreshed.returncode == 0, refreshed.stderr
    return len(struck)


def secret_expired(fleet: Fleet) -> int:
    """Neither secret is good any more, until somebody mends the registration."""
    _accept(fleet, "mended-by-nobody")
    fleet.make_due()
    wait_for(fleet.services.events.breakers, about="the breaker to open", processes=fleet.processes())
    _accept(fleet, DEFAULT_CLIENT_SECRET)
    return 1


def secret_rotated(fleet: Fleet) -> int:
    """The old one is deleted at Microsoft, the next one is known; and back."""
    _accept(fleet, NEXT_SECRET)
    fleet.cycle()
    _accept(fleet, DEFAULT_CLIENT_SECRET)
    fleet.cycle()
    return 2


def clock_stepped(fleet: Fleet) -> int:
    """Microsoft's clock against ours: five minutes ahead, five minutes behind, and right again."""
    for minutes in (5, -5, 0):
        fleet.witness.step(timedelta(minutes=minutes))
        fleet.cycle()
    return 3


def reconnected_in_flight(fleet: Fleet) -> int:
    """Users sign in anew while Microsoft's answer to the old grant is on its way."""
    struck = fleet.emails[:THREADS]
    for email in struck:
        fleet.witness.add_fault(Hang(1.0, after=True), email, times=1)
    before = fleet.witness.injected
    fleet.make_due(struck)
    until(lambda: fleet.witness.injected == before + len(struck), about="the questions")
    fleet.sign_in(struck)
    return len(struck)


def _storm(fleet: Fleet, *faults: Fault) -> int:
    """Every answer is bad until as many as there are mailboxes were, or the breaker keeps everybody from asking."""
    before, witness = fleet.witness.injected, fleet.witness
    for fault in islice(cycle(faults), MAILBOXES):
        witness.add_fault(fault, times=1)
    fleet.make_due()
    try:
        until(lambda: witness.injected > before, about="the first question")
        until(
            lambda: witness.injected == before + MAILBOXES or witness.idle(seconds=_LULL), about="the end of the storm"
        )
    finally:
        witness.clear_faults()
    return witness.injected - before


def _for_everybody(fleet: Fleet, *faults: Fault) -> int:
    """One bad answer for each mailbox."""
    before = fleet.witness.injected
    for email, fault in zip(fleet.emails, cycle(faults), strict=False):
        fleet.witness.add_fault(fault, email, times=1)
    fleet.make_due()
    until(lambda: fleet.witness.injected >= before + MAILBOXES, about="everybody's question")
    return MAILBOXES


def _accept(fleet: Fleet, secret: str) -> None:
    fleet.witness.registrations.register(Registration(secrets=(secret,)))
