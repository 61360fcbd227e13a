"""The table of codes over the wire: the emulator refuses with each code once, and the outcome is that of the code's
row."""

from tests.factories import NOW
from tests.integration.identity.identities import open_identity
from worker.devkit.emulator import EmulatorServer, oauth_error
from worker.domain.client_type import ClientType, required_type
from worker.domain.codes import BY_NUMBER, Verdict
from worker.domain.outcome import Outcome, Scope
from worker.domain.token import Secret
from worker.identity import TokenRequest

_KINDS = {
    Verdict.REAUTH: "reauth_required",
    Verdict.UNPROVEN: "reauth_required",
    Verdict.BLOCKED: "blocked",
    Verdict.THROTTLED: "throttled",
    Verdict.TRANSIENT: "transient",
    Verdict.TRANSIENT_LONG: "transient",
}  # every other outcome is misconfigured


def test_each_code_means_over_the_wire_what_its_row_says(server: EmulatorServer) -> None:
    """One account per code, all in one round. A grant of another type of client is requested twice."""
    outcomes = refuse_each(server)

    assert set(outcomes) == set(BY_NUMBER)
    for code, outcome in outcomes.items():
        row = BY_NUMBER[code]
        assert (outcome.kind, outcome.code) == (_KINDS.get(row.verdict, "misconfigured"), code)
        assert (outcome.scope is Scope.CLIENT) == (row.scope is Scope.CLIENT), code
        assert (outcome.scope is Scope.SERVICE) == (row.scope is Scope.SERVICE), code
    twice = [code for code in BY_NUMBER if required_type(code) in {ClientType.PUBLIC, ClientType.SPA}]
    assert server.emulator.statistics().failures == len(BY_NUMBER) + len(twice)


def refuse_each(server: EmulatorServer) -> dict[str, Outcome]:
    """The outcome by code. The status is always 400, because a 5xx alone would decide the outcome."""
    requests = []
    for code in BY_NUMBER:
        email = f"{code.lower()}@contoso.com"
        token = Secret(server.emulator.enrol(email).refresh_token)
        server.emulator.add_fault(oauth_error(code, status=400), email)
        requests.append((code, TokenRequest(refresh_token=token, client="default", authority=None, scopes=())))
    outcomes: dict[str, Outcome] = {}
    with open_identity(server.authority, server.ca_bundle, connections=16) as identity:
        for group in identity.refresh_all(iter(requests), now=lambda: NOW):
            for attempt in group:
                assert attempt.error is None
                outcomes[attempt.key] = attempt.outcome
    return outcomes
