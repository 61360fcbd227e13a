"""The sweep's statements cost as much as the rows that they lease or count, however many accounts there are."""

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
DUE, LIMIT = 30, 100  # fewer than fit into a batch: the scan must still stop early
# A table in normal operation: few accounts are due, the others soon will be, and a tenth cannot be leased. Rows are as
# wide as real ones, whose refresh token is stored in line, because Postgres would read a table of few pages as a whole.
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


def lease_plan(connection: Connection, *, executions: int) -> dict[str, Any]:
    """The plan of the lease after so many executions.

    From the sixth execution on, Postgres may use a generic plan, and psycopg prepares a statement that it sees often.
    """
    statement = str(leases._LEASE_DUE)
    for position, name in enumerate(("now", "limit", "lease_id", "lease_until", "client", "long_ago"), start=1):
        statement = re.sub(rf":{name}\b", f"${position}", statement)
    connection.exec_driver_sql(f"PREPARE lease AS {statement}")
    values = f"'{NOW}', {{limit}}, '{UUID(int=7)}', '{NOW + LEASE}', 'default', '{NOW - LEASE}'"
    for _ in range(executions):
        connection.exec_driver_sql(f"EXECUTE lease({values.format(limit=1)})")
    return explain(connection, f"EXECUTE lease({values.format(limit=LIMIT)})")


def explain(connection: Connection, statement: str) -> dict[str, Any]:
    plan = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}").scalar_one()
    found: dict[str, Any] = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
    return found


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def rows_read(plan: dict[str, Any]) -> int:
    """Rows fetched from the table, including those that were filtered out."""
    scans = [node for node in nodes(plan) if "Scan" in node["Node Type"] and "Relation Name" in node]
    return sum(
        round((scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) * scan["Actual Loops"]) for scan in scans
    )


def pages(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize("executions", [0, 10], ids=["planned anew", "prepared"])
def test_a_lease_reads_the_leased_rows_and_not_the_table(rows: Rows, executions: int) -> None:
    """A lease that grew with the table would slow every worker down every five seconds at a million accounts."""
    touched = {}
    for accounts in (SMALL, LARGE):
        fill(rows, accounts)
        with rows.database.begin() as connection:
            plan = lease_plan(connection, executions=executions)
            connection.exec_driver_sql("DEALLOCATE lease")

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
def test_counting_reads_the_due_rows_up_to_the_limit(rows: Rows, now: datetime, limit: int, due: int) -> None:
    """The sweep counts every five seconds, also during the backlog after an outage."""
    fill(rows, LARGE)

    with rows.database.begin() as connection:
        found = leases.count_due(connection, client="default", limit=limit, now=now)
        read = connection.exec_driver_sql(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'mail_credentials'"
        ).scalar_one()

    assert found == due
    assert read <= 1.2 * due  # if all rows are due, a scan may start at the table's beginning


def test_the_index_holds_only_accounts_that_can_be_leased(rows: Rows) -> None:
    """Millions of paused accounts must not slow a lease down."""
    fill(rows, SMALL)

    [(entries,)] = rows.sql("SELECT reltuples FROM pg_class WHERE relname = 'ix_mail_credentials_due'")

    assert rows.sql("SELECT count(refresh_due_at) FROM mail_credentials") == [(entries,)]
    assert entries < SMALL


def test_a_watch_reads_only_accounts_that_need_attention(rows: Rows) -> None:
    """Every listener runs it every few seconds.

    It reads only the accounts that need attention and have changed lately.
    """
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
        everyone = watch.changed_since(connection, None)
        plans = [
            explain(connection, str(statement).replace(":since", f"'{since}'"))
            for statement in (watch._LATELY, watch._ALL)
        ]

    assert (len(found), len(everyone)) == (10, 200)
    assert [rows_read(plan) for plan in plans] == [10, 200]
