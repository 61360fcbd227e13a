"""The ledger records every request to Microsoft, lists the newest first, and drops what is old, a day at a time."""

from dataclasses import asdict, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.constants import ANN, BOB, CAT, DAY, MINUTE
from tests.factories import NOW
from tests.integration.db.rows import Rows, grant
from worker.db import events
from worker.db.events import RefreshEvent, Success
from worker.domain.account import AccountId, account_id


def event(email: str = ANN, *, at: datetime = NOW, **changes: Any) -> RefreshEvent:
    values: dict[str, Any] = {
        "account_id": account_id(email),
        "at": at,
        "client": "default",
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


def maintain(rows: Rows, *, now: datetime = NOW) -> int:
    """Keep five days of events, and two of plain successes."""
    with rows.database.begin() as connection:
        return events.maintain(connection, event_days=5, success_days=2, now=now)


def succeed(rows: Rows, *emails: str, at: datetime = NOW, trigger: str = "schedule", milliseconds: int = 120) -> None:
    """The accounts are refreshed in one group. The row of each says when the last success was."""
    successes = [Success(account_id(email), "default", at, milliseconds) for email in emails]
    with rows.database.begin() as connection:
        events.record_successes(connection, successes, trigger=trigger)
    rows.sql(
        "UPDATE mail_credentials SET last_refreshed_at = :at WHERE email = ANY(:emails)", at=at, emails=list(emails)
    )


def partitions(rows: Rows, table: str = "refresh_events") -> list[str]:
    listed = rows.sql(
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
        " WHERE inhparent = CAST(:table AS regclass) ORDER BY relname",
        table=table,
    )
    return [name.removeprefix(f"{table}_") for (name,) in listed]


def place(rows: Rows) -> list[str]:
    """The partitions that hold events."""
    return [name for (name,) in rows.sql("SELECT DISTINCT tableoid::regclass::text FROM refresh_events ORDER BY 1")]


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


def test_plain_successes_are_read_back_among_the_events(rows: Rows) -> None:
    """A row of them holds many accounts, of several app registrations."""
    rows.save(grant(), grant(BOB), grant(CAT))
    succeed(rows, ANN, BOB, at=NOW, milliseconds=99_999)
    record(rows, event(at=NOW + MINUTE, outcome="transient"))
    succeed(rows, BOB, ANN, CAT, at=NOW + 2 * MINUTE, trigger="consumer", milliseconds=0)

    newest, failed, oldest = latest(rows)

    assert [line["at"] for line in (newest, failed, oldest)] == [NOW + 2 * MINUTE, NOW + MINUTE, NOW]
    assert (newest["trigger"], newest["outcome"], newest["code"]) == ("consumer", "refreshed", "ok")
    assert (newest["latency_ms"], oldest["latency_ms"], newest["correlation_id"]) == (0, 65_535, None)
    assert failed["outcome"] == "transient"
    assert len(latest(rows, BOB)) == 2
    assert len(latest(rows, CAT)) == 1
    assert rows.sql("SELECT count(*) FROM refresh_successes") == [(2,)]


@pytest.mark.parametrize("first_byte", [0x00, 0x7F, 0x80, 0xFF])
def test_every_id_is_found_again(rows: Rows, first_byte: int) -> None:
    """The number of an account has a sign."""
    account = AccountId(UUID(bytes=bytes([first_byte]) + b"\xff" * 15))
    rows.save(replace(grant(), account_id=account))
    with rows.database.begin() as connection:
        events.record_successes(connection, [Success(account, "eu", NOW, 7)], trigger="schedule")
    rows.sql("UPDATE mail_credentials SET last_refreshed_at = :now", now=NOW)

    with rows.database.begin() as connection:
        [line] = events.latest(connection, account, limit=10)

    assert (line["client"], line["latency_ms"]) == ("eu", 7)


def test_partitions_are_made_ahead_and_dropped_by_age(rows: Rows) -> None:
    """Nothing is deleted row by row."""
    assert maintain(rows) == 0
    days = [f"{NOW + n * DAY:%Y%m%d}" for n in range(12)]
    assert partitions(rows) == partitions(rows, "refresh_successes") == [*days[:4], "default"]
    record(rows, event())

    assert maintain(rows, now=NOW + DAY) == 0
    assert maintain(rows, now=NOW + 4 * DAY) == 3
    assert latest(rows)
    assert partitions(rows, "refresh_successes") == [*days[3:8], "default"]
    assert maintain(rows, now=NOW + 5 * DAY) == 2
    assert latest(rows) == []
    assert partitions(rows) == [*days[1:9], "default"]


def test_a_day_without_a_partition_costs_no_event(rows: Rows) -> None:
    """No worker has made partitions for weeks. The default partition takes the rows, and is emptied at once later."""
    record(rows, event())
    maintain(rows)
    record(rows, event(at=NOW + MINUTE), event(at=NOW + DAY))

    assert f"{NOW:%Y%m%d}" not in partitions(rows)
    assert place(rows) == [f"refresh_events_{NOW + DAY:%Y%m%d}", "refresh_events_default"]
    assert maintain(rows, now=NOW + 4 * DAY) == 3  # of plain successes
    assert len(latest(rows)) == 3
    maintain(rows, now=NOW + 5 * DAY)
    assert [line["at"] for line in latest(rows)] == [NOW + DAY]


def test_an_event_of_a_wrong_clock_does_not_keep_the_others(rows: Rows) -> None:
    record(rows, event(), event(at=NOW + 3650 * DAY))

    maintain(rows, now=NOW + 5 * DAY)

    assert latest(rows) == []


def test_maintenance_waits_for_no_reader(rows: Rows, database_url: str) -> None:
    """A backup reads the tables for hours. Refreshes would queue behind a DROP that waits for it."""
    maintain(rows)
    record(rows, event())
    with psycopg.connect(database_url.replace("+psycopg", "")) as backup:
        backup.execute("SELECT FROM refresh_events")
        maintain(rows, now=NOW + 9 * DAY)
        record(rows, event(at=NOW + 9 * DAY))

    assert len(latest(rows)) == 2
    maintain(rows, now=NOW + 9 * DAY)
    assert len(latest(rows)) == 1


def test_two_workers_do_not_maintain_at_once(rows: Rows) -> None:
    """Neither fails."""
    with rows.database.begin() as connection:
        events.maintain(connection, event_days=5, success_days=2, now=NOW)
        assert maintain(rows, now=NOW + 30 * DAY) == 0


def test_an_event_needs_no_account(rows: Rows) -> None:
    """A foreign key would lock the account's row for every event, and delete the history with the account."""
    record(rows, event("nobody@contoso.com"))

    assert len(latest(rows, "nobody@contoso.com")) == 1
