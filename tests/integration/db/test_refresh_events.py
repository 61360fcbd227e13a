"""The refresh_events table records every request to Microsoft, lists the newest first, and is pruned by age."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from tests.constants import ANN, BOB, MINUTE
from tests.factories import NOW
from tests.integration.db.rows import Rows
from worker.db import events
from worker.db.events import RefreshEvent
from worker.domain.account import account_id


def event(email: str = ANN, *, at: datetime = NOW, **changes: Any) -> RefreshEvent:
    values: dict[str, Any] = {
        "account_id": account_id(email),
        "at": at,
        "trigger": "schedule",
        "outcome": "refreshed",
        "code": "ok",
        "latency_ms": 120,
        "correlation_id": "c0ffee",
        "fingerprint_before": "k1:01",
        "fingerprint_after": "k1:02",
    }
    return RefreshEvent(**values | changes)


def record(rows: Rows, *lines: RefreshEvent) -> None:
    with rows.database.begin() as connection:
        events.record(connection, lines)


def latest(rows: Rows, email: str = ANN, *, limit: int = 10) -> list[dict[str, Any]]:
    with rows.database.begin() as connection:
        return [dict(line) for line in events.latest(connection, account_id(email), limit=limit)]


def prune(rows: Rows, *, before: datetime, limit: int = 10) -> int:
    with rows.database.begin() as connection:
        return events.prune(connection, before=before, limit=limit)


def test_an_event_is_read_back_as_it_was_written(rows: Rows) -> None:
    """All columns are compared, because two lists that must agree name them."""
    lines = [event(), event(BOB, outcome="transient", code="timeout", correlation_id=None, fingerprint_after=None)]

    record(rows, *lines)

    for line, email in zip(lines, (ANN, BOB), strict=True):
        written = asdict(line)
        del written["account_id"]
        assert latest(rows, email) == [written]


def test_the_newest_events_come_first_up_to_the_limit(rows: Rows) -> None:
    """A reader wants to know the current problem of an account."""
    record(rows, *(event(code=str(number), at=NOW + number * MINUTE) for number in range(3)))
    record(rows, event(BOB, code="of another account"))

    assert [line["code"] for line in latest(rows, limit=2)] == ["2", "1"]


def test_old_events_are_pruned_in_batches(rows: Rows) -> None:
    """Deleting a month of events in one statement would exceed the statement timeout."""
    record(rows, *(event(code=str(age), at=NOW - age * MINUTE) for age in range(5)))

    assert prune(rows, before=NOW - MINUTE, limit=2) == 2
    assert prune(rows, before=NOW - MINUTE, limit=2) == 1
    assert prune(rows, before=NOW - MINUTE, limit=2) == 0
    assert [line["code"] for line in latest(rows)] == ["1", "0"]


def test_an_event_needs_no_account(rows: Rows) -> None:
    """A foreign key would lock the account's row for every event, and delete the history with the account."""
    record(rows, event("nobody@contoso.com"))

    assert len(latest(rows, "nobody@contoso.com")) == 1
