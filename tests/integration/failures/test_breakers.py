"""A group of outcomes shows whether Microsoft can be reached, before any of them is stored."""

import pytest
from structlog.testing import capture_logs

from tests.factories import NOW, make_refreshed
from tests.integration.installation import Installation
from worker.domain.account import account_id
from worker.domain.breaker import Answer
from worker.domain.outcome import Outcome, Scope, Transient
from worker.service.refresh.breakers import CircuitBreakers

CLIENT = "default"
UNHEARD: Outcome = Transient(code="timeout", scope=Scope.NETWORK)


@pytest.fixture(name="gate")
def _gate(installation: Installation) -> CircuitBreakers:
    gate = CircuitBreakers(database=installation.services.database, utcnow=installation.clock)
    gate.admit(CLIENT, 1)
    return gate


def _answers(*outcomes: Outcome) -> list[Answer]:
    accounts = (account_id(f"user{number}@contoso.com") for number, _ in enumerate(outcomes))
    return [
        Answer(account=account, outcome=outcome, requested_at=NOW)
        for account, outcome in zip(accounts, outcomes, strict=True)
    ]


@pytest.mark.parametrize(
    ("outcomes", "is_open"),
    [
        ([UNHEARD, UNHEARD, UNHEARD], True),
        ([UNHEARD, UNHEARD], False),
        ([UNHEARD, UNHEARD, UNHEARD, make_refreshed()], False),
        ([make_refreshed(), UNHEARD, UNHEARD, UNHEARD], False),
    ],
    ids=["no response", "two are too few", "the last got a response", "the first got a response"],
)
def test_the_network_counts_as_up_if_one_request_got_through(
    gate: CircuitBreakers, outcomes: list[Outcome], is_open: bool
) -> None:
    """Requests of one group have no order, because all were in flight at once."""
    gate.record(CLIENT, _answers(*outcomes))

    assert gate.is_open(CLIENT) == is_open


def test_a_lost_network_is_logged_once_and_so_is_its_return(gate: CircuitBreakers) -> None:
    """The state is in no database, so the log of the affected machine is the only place to see it."""
    lost, back = _answers(UNHEARD, UNHEARD, UNHEARD), _answers(make_refreshed())

    with capture_logs() as logs:
        for answers in (lost, lost, back, back):
            gate.record(CLIENT, answers)

    assert [(entry["log_level"], entry["event"], entry.get("code")) for entry in logs] == [
        ("error", "Microsoft cannot be reached from here", "timeout"),
        ("info", "Microsoft can be reached again", None),
    ]
