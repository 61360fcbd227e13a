"""Figures of the fleet, each by a look at every account. Callers own the transaction; ``now`` is an argument."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection, RowMapping, text

from worker.db.rows import EXPIRED, FREE
from worker.db.selection import SINCE

Dimension: TypeAlias = Literal["client", "domain", "code", "label"]

_DOMAIN = "split_part(email, '@', 2)"
_FIGURES = f"""
    count(*) AS accounts,
    count(*) FILTER (WHERE refresh_due_at <= :now AND {FREE}) AS due,
    count(*) FILTER (WHERE NOT {FREE}) AS in_flight,
    count(*) FILTER (WHERE {EXPIRED}) AS expired,
    count(*) FILTER (WHERE failure_count > 0) AS failing
"""
_GROUPS: dict[Dimension, str] = {
    "client": "client",
    "domain": _DOMAIN,
    "code": "CASE WHEN failure_count > 0 THEN failure_code END",
    "label": "label",
}


def summary(connection: Connection, *, clients: Sequence[str], now: datetime) -> Mapping[str, Any]:
    """The figures of ``status``: accounts by state, how many are due or expired, and the oldest due time.

    ``unconfigured``: accounts of app registrations other than ``clients``, which this process does not refresh.
    """
    rows = connection.execute(
        text(f"""
            SELECT status, {_FIGURES},
                   count(*) FILTER (WHERE client <> ALL(CAST(:clients AS text[]))) AS unconfigured,
                   min(refresh_due_at) FILTER (WHERE refresh_due_at <= :now AND {FREE}) AS oldest_due_at,
                   max(last_refreshed_at) AS last_refreshed_at
            FROM mail_credentials GROUP BY status
        """),
        {"now": now, "clients": list(clients)},
    )
    found = rows.mappings().all()
    numbers = ("due", "in_flight", "expired", "failing", "unconfigured")
    return {
        "accounts": {row["status"]: row["accounts"] for row in found},
        **{name: sum(row[name] for row in found) for name in numbers},
        "oldest_due_at": min(filter(None, (row["oldest_due_at"] for row in found)), default=None),
        "last_refreshed_at": max(filter(None, (row["last_refreshed_at"] for row in found)), default=None),
    }


def failing_codes(connection: Connection, *, since: datetime, limit: int) -> Sequence[RowMapping]:
    """The codes with most failing accounts: ``code``, ``accounts``, and ``lately``, those that fail since ``since``.

    ``client`` and ``domain`` are set if all of them are of one.
    """
    statement = text(f"""
        SELECT failure_code AS code, count(*) AS accounts, count(*) FILTER (WHERE {SINCE} >= :since) AS lately,
               CASE WHEN min(client) = max(client) THEN min(client) END AS client,
               CASE WHEN min({_DOMAIN}) = max({_DOMAIN}) THEN min({_DOMAIN}) END AS domain
        FROM mail_credentials WHERE failure_count > 0
        GROUP BY failure_code ORDER BY accounts DESC, code LIMIT :limit
    """)
    return connection.execute(statement, {"since": since, "limit": limit}).mappings().all()


def by(connection: Connection, dimension: Dimension, *, now: datetime) -> Sequence[RowMapping]:
    """The figures of each ``name`` of a dimension, those with most failing accounts first.

    An account with several labels counts for each. The name is None for accounts without a failure or a label.
    """
    labels = "LEFT JOIN LATERAL unnest(labels) AS label ON true" if dimension == "label" else ""
    statement = text(f"""
        SELECT {_GROUPS[dimension]} AS name, {_FIGURES},
               count(*) FILTER (WHERE status IN ('reauth_required', 'blocked', 'unreadable')) AS need_attention
        FROM mail_credentials {labels} GROUP BY 1 ORDER BY failing DESC, accounts DESC, name
    """)
    return connection.execute(statement, {"now": now}).mappings().all()
