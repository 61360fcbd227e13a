"""The statements of the exporter. Each only reads. Callers own the transaction; ``now`` is always an argument."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, RowMapping, text

from worker.db.events import LATENCY_MASK
from worker.db.rows import EXPIRED, FREE, GRANT_EXPIRES_AT
from worker.domain.account import INACTIVITY, Status

_EXPORTERS = 0x746B776B  # of pg_try_advisory_xact_lock: any number that no other program uses in this database

_OF_HTTP = "^(discovery_)?http_[0-9]{3}$"  # codes by the status of the response

# The names of the app registrations, by one probe of the index for each.
_CLIENTS = """
    WITH RECURSIVE clients AS (
        (SELECT client FROM mail_credentials WHERE refresh_due_at IS NOT NULL ORDER BY client LIMIT 1)
        UNION ALL
        SELECT (SELECT c.client FROM mail_credentials c WHERE c.refresh_due_at IS NOT NULL AND c.client > clients.client
                ORDER BY c.client LIMIT 1)
        FROM clients WHERE clients.client IS NOT NULL
    )
"""
_OLDEST_DUE = text(f"""
    {_CLIENTS}
    SELECT client, (
        SELECT refresh_due_at FROM mail_credentials c
        WHERE c.client = clients.client AND refresh_due_at <= :now AND {FREE} ORDER BY refresh_due_at LIMIT 1
    ) AS due_at
    FROM clients WHERE client IS NOT NULL
""")


def oldest_due(connection: Connection, *, now: datetime) -> dict[str, datetime | None]:
    """The due time of the longest overdue account that no process has leased, for each app registration.

    None: no account of the registration is due. A registration without any account that is refreshed is missing. Reads
    one row of each, and before it those that are leased.
    """
    return {row.client: row.due_at for row in connection.execute(_OLDEST_DUE, {"now": now})}


def lead(connection: Connection) -> bool:
    """Become the exporter that looks at every account, until the transaction ends. False if another one is.

    The lock belongs to the transaction and not to the session, because a pooler may give the session to others.
    """
    statement = text("""
        SELECT pg_try_advisory_xact_lock(:key), set_config('idle_in_transaction_session_timeout', '0', true)
    """)
    return bool(connection.execute(statement, {"key": _EXPORTERS}).scalar_one())


def fleet(
    connection: Connection,
    *,
    codes: Sequence[str],
    expiring: Mapping[str, timedelta],
    ending: Mapping[str, timedelta],
    now: datetime,
) -> Sequence[RowMapping]:
    """All accounts that use OAuth, counted by client, status and code of the current failure. Reads every row.

    A code that is neither in ``codes`` nor an HTTP status is ``other``. Each row has ``accounts``, ``due``, ``expired``
    (see ``rows.EXPIRED``), ``last_refreshed_at``, and for the spans columns ``expiring_NAME`` and ``ending_NAME``:
    access tokens of active accounts that end within it, and grants that end within it.
    """
    lives = "status = 'active' AND token_expiry > :now AND token_expiry <= CAST(:now AS timestamptz)"
    # Of the accounts that use OAuth only the disconnected ones have no grant. So the exporter's role need not read the
    # column of the sealed token.
    has_grant = f"status NOT IN ('{Status.REAUTH_REQUIRED}', '{Status.DISCONNECTED}')"
    grant_ends = f"{has_grant} AND {GRANT_EXPIRES_AT} < CAST(:now AS timestamptz)"
    windows = [
        f"count(*) FILTER (WHERE {condition} + CAST(:{kind}_{name} AS interval)) AS {kind}_{name}"
        for kind, condition, spans in (("expiring", lives, expiring), ("ending", grant_ends, ending))
        for name in spans
    ]
    is_known = f"failure_code = ANY(CAST(:codes AS text[])) OR failure_code ~ '{_OF_HTTP}'"
    statement = text(f"""
        SELECT client, status,
               CASE WHEN failure_count > 0 THEN CASE WHEN {is_known} THEN failure_code ELSE 'other' END END AS code,
               count(*) AS accounts, count(*) FILTER (WHERE refresh_due_at <= :now AND {FREE}) AS due,
               count(*) FILTER (WHERE {EXPIRED}) AS expired,
               max(last_refreshed_at) AS last_refreshed_at, {", ".join(windows)}
        FROM mail_credentials WHERE use_oauth GROUP BY 1, 2, 3
    """)
    spans = {f"expiring_{name}": span for name, span in expiring.items()}
    spans |= {f"ending_{name}": span for name, span in ending.items()}
    given = {"codes": list(codes), "now": now, "inactivity": INACTIVITY, **spans}
    return connection.execute(statement, given).mappings().all()


def newest_event(connection: Connection) -> int:
    """The highest id of the ledger, which its two tables share. Transactions under way may still commit lower ones."""
    statement = text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM refresh_events_id_seq")
    return int(connection.execute(statement).scalar_one())


def refreshes(connection: Connection, *, after: int, until: int, buckets: Sequence[int]) -> Sequence[RowMapping]:
    """The ledger's refreshes with ids in (``after``, ``until``], counted by client, outcome, code and trigger.

    ``buckets`` are latencies in milliseconds. Each row has ``events``, ``milliseconds`` in total, and ``within``: how
    many took at most each of the buckets.
    """
    within = ", ".join(f"count(*) FILTER (WHERE latency_ms <= {int(bucket)})" for bucket in buckets)
    statement = text(f"""
        SELECT client, outcome, code, trigger,
               count(*) AS events, sum(latency_ms) AS milliseconds, ARRAY[{within}] AS within
        FROM (
            SELECT client, outcome, code, trigger, latency_ms FROM refresh_events WHERE id > :after AND id <= :until
            UNION ALL
            SELECT client, 'refreshed', 'ok', trigger, CAST(refresh & :mask AS int)
            FROM refresh_successes, unnest(refreshes) AS refresh WHERE id > :after AND id <= :until
        ) AS refreshes GROUP BY 1, 2, 3, 4
    """)
    return connection.execute(statement, {"after": after, "until": until, "mask": LATENCY_MASK}).mappings().all()
