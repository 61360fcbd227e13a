"""What the sweep's statements cost: as much as they claim, however many accounts there are."""

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from tests.factories import NOW
from tests.integration.db.rows import LEASE, Rows
from worker.db import leases, watch

SMALL, LARGE = 2_000, 20_000
DUE, LIMIT = 30, 100  # fewer than a batch holds: the search must not go on to its end
# As in the midst of work: few are due, the others soon will be, and a tenth may not be claimed at all. Rows are as wide
# as real ones, whose refresh token is stored in line: a table of few pages would rightly be read as a whole.
FILL = text("""
    INSERT INTO mail_credentials (id, email, refresh_token, refresh_due_at, status, created_at, updated_at)
    SELECT gen_random_uuid(), 'user' || n || '@contoso.com', decode(repeat('ab', 1400), 'hex'),
           CASE WHEN n % 10 = 0 AND n > :due THEN NULL ELSE :now + (n - :due) * interval '100 ms' END,
           CASE WHEN n % 10 = 0 AND n > :due THEN 'paused' ELSE 'active' END, :now, :now
    FROM generate_series(1, :accounts) AS n
""")


def fill(rows: Rows, accounts: int) -> None:
    with rows.database.begin() as connection:
        connection.execute(text("TRUNCATE mail_credentials"))
        connection.execute(FILL, {"accounts": accounts, "due": DUE, "now": NOW})
    rows.sql("ANALYZE mail_credentials")


def claim_plan(connection: Connection, *, executions: int) -> dict[str, Any]:
    """How the claim is executed after so many executions: from the sixth on Postgres may use a plan for any values,
    and the driver prepares a statement that it sees often."""
    statement = str(leases._CLAIM_DUE)
    for position, name in enumerate(("now", "limit", "lease_id", "lease_until", "client", "long_ago"), start=1):
        statement = re.sub(rf":{name}\b", f"${position}", statement)
    connection.exec_driver_sql(f"PREPARE claim AS {statement}")
    values = f"'{NOW}', {{limit}}, '{UUID(int=7)}', '{NOW + LEASE}', 'default', '{NOW - LEASE}'"
    for _ in range(executions):
        connection.exec_driver_sql(f"EXECUTE claim({values.format(limit=1)})")
    return explain(connection, f"EXECUTE claim({values.format(limit=LIMIT)})")


def explain(connection: Connection, statement: str) -> dict[str, Any]:
    plan = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}").scalar_one()
    found: dict[str, Any] = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
    return found


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def rows_read(plan: dict[str, Any]) -> int:
    """Rows fetched from the table, also those that were thrown away."""
    scans = [node for node in nodes(plan) if "Scan" in node["Node Type"] and "Relation Name" in node]
    return sum(
        round((scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) * scan["Actual Loops"]) for scan in scans
    )


def pages(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize("executions", [0, 10], ids=["planned anew", "prepared"])
def test_a_claim_reads_what_it_claims_and_not_the_table(rows: Rows, executions: int) -> None:
    """A claim that grew with the table would be felt with a million accounts, every five seconds, by every worker."""
    touched = {}
    for accounts in (SMALL, LARGE):
        fill(rows, accounts)
        with rows.database.begin() as connection:
            plan = claim_plan(connection, executions=executions)
            connection.exec_driver_sql("DEALLOCATE claim")

        assert "ix_mail_credentials_due" in {node.get("Index Name") for node in nodes(plan)}
        assert "Seq Scan" not in {node["Node Type"] for node in nodes(plan)}
        assert plan["Actual Rows"] == DUE - executions
        assert rows_read(plan) <= 2 * DUE, "once to find each, once to change it"
        touched[accounts] = pages(plan)
    assert touched[LARGE] < 1.2 * touched[SMALL]


@pytest.mark.parametrize(
    ("now", "limit", "due"),
    [
        pytest.param(NOW, LARGE, DUE, id="few are due"),
        pytest.param(NOW + timedelta(days=1), LIMIT, LIMIT, id="all are due"),
    ],
)
def test_counting_reads_what_is_due_and_no_more_than_the_limit(rows: Rows, now: datetime, limit: int, due: int) -> None:
    """Sweep counts every five seconds, also while the backlog of a whole outage waits."""
    fill(rows, LARGE)

    with rows.database.begin() as connection:
        found = leases.count_due(connection, client="default", limit=limit, now=now)
        read = connection.exec_driver_sql(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'mail_credentials'"
        ).scalar_one()

    assert found == due
    assert read <= 1.2 * due  # a table of which all is due may be read from its start


def test_the_index_holds_what_may_be_claimed_and_nothing_else(rows: Rows) -> None:
    """Millions of paused accounts must cost a claim nothing."""
    fill(rows, SMALL)

    [(entries,)] = rows.sql("SELECT reltuples FROM pg_class WHERE relname = 'ix_mail_credentials_due'")

    assert rows.sql("SELECT count(refresh_due_at) FROM mail_credentials") == [(entries,)]
    assert entries < SMALL


def test_who_watches_for_those_in_need_reads_nobody_else(rows: Rows) -> None:
    """Every few seconds, by every listener: not the table, and of those in need only the latest."""
    fill(rows, LARGE)
    rows.sql(
        """
        UPDATE mail_credentials SET status = 'blocked', status_changed_at = :now - n * interval '1 min'
        FROM (SELECT id, row_number() OVER () AS n FROM mail_credentials WHERE status = 'active' LIMIT 200) AS few
        WHERE mail_credentials.id = few.id
    """,
        now=NOW,
    )
    rows.sql("ANALYZE mail_credentials")

    since = NOW - timedelta(minutes=10)
    with rows.database.begin() as connection:
        found = watch.changed_since(connection, since)
        everybody = watch.changed_since(connection, None)
        plans = [
            explain(connection, str(statement).replace(":since", f"'{since}'"))
            for statement in (watch._LATELY, watch._ALL)
        ]

    assert (len(found), len(everybody)) == (10, 200)
    assert [rows_read(plan) for plan in plans] == [10, 200]
