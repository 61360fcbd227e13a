"""Leases of accounts that show whether an app registration works, while its breaker is open or suspected."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, TextClause, text

from worker.db.leases import LEASE_COLUMNS, as_lease
from worker.db.rows import FREE
from worker.domain.account import AccountId, Lease, LeaseId

# A probe is leased although it may not be due. The most recently refreshed accounts come first, since they work most
# likely. Those of the last minutes are spared, because Microsoft takes equal requests in a row for a loop. Each step
# walks along the index of due times.
_HEALTHY = """
    c.refresh_due_at IS NOT NULL AND c.status = 'active' AND c.failure_count = 0
    AND c.last_refreshed_at IS NOT NULL AND (c.last_refreshed_at < c.signed_in_at) IS NOT TRUE
"""
_IS_DUE = "c.refresh_due_at <= :now"
_UNTRIED = f"{_IS_DUE} AND c.failure_count = 0"
_ELSEWHERE = """
    split_part(c.email, '@', 2) NOT IN (
        SELECT split_part(f.email, '@', 2) FROM mail_credentials AS f WHERE f.id = ANY(CAST(:failing AS uuid[]))
    )
"""
_LAST_REFRESHED, _LONGEST_OVERDUE = "c.refresh_due_at DESC", "c.refresh_due_at"
_PROBE_REST = timedelta(minutes=5)


def _lease_first(condition: str, order: str) -> TextClause:
    return text(f"""
        WITH first AS (
            SELECT ctid FROM mail_credentials AS c
            WHERE client = :client AND {condition} AND {FREE}
            ORDER BY {order} LIMIT 1 FOR UPDATE SKIP LOCKED
        )
        UPDATE mail_credentials AS c
        SET lease_id = :lease_id, lease_until = :lease_until
        FROM first WHERE c.ctid = first.ctid
        RETURNING {LEASE_COLUMNS}
    """)


_LEASE_PROBE = (
    _lease_first(f"{_HEALTHY} AND c.last_refreshed_at <= :rested AND {_ELSEWHERE}", _LAST_REFRESHED),
    _lease_first(f"{_HEALTHY} AND {_ELSEWHERE}", _LAST_REFRESHED),
    _lease_first(f"{_UNTRIED} AND {_ELSEWHERE}", _LONGEST_OVERDUE),
    _lease_first(f"{_HEALTHY} AND c.last_refreshed_at <= :rested", _LAST_REFRESHED),
    _lease_first(_HEALTHY, _LAST_REFRESHED),
    _lease_first(_UNTRIED, _LONGEST_OVERDUE),
    _lease_first(_IS_DUE, _LONGEST_OVERDUE),
)
_HAS_PROBE = text(f"""
    SELECT EXISTS (
        SELECT FROM mail_credentials AS c
        WHERE client = :client AND ({_HEALTHY} OR {_UNTRIED} AND {_ELSEWHERE})
          AND c.id <> ALL(CAST(:failing AS uuid[]))
    )
""")

_SIGN_IN = f"{_UNTRIED} AND c.signed_in_at > :since"
_LEASE_SIGN_IN = _lease_first(_SIGN_IN, _LONGEST_OVERDUE)
_HAS_SIGN_IN = text(f"""
    SELECT EXISTS (SELECT FROM mail_credentials AS c WHERE client = :client AND {_SIGN_IN} AND {FREE})
""")


def lease_probe(
    connection: Connection,
    *,
    client: str,
    failing: Sequence[AccountId],
    lease_id: LeaseId,
    lease: timedelta,
    now: datetime,
) -> Lease | None:
    """Lease the account that shows best whether the app registration works: one that was healthy when it was last
    refreshed, if possible of another tenant than the failing ones."""
    values = {"client": client, "failing": list(failing), "rested": now - _PROBE_REST}
    for statement in _LEASE_PROBE:
        if found := _lease_by(connection, statement, values, lease_id=lease_id, until=now + lease, now=now):
            return found
    return None


def has_probe(connection: Connection, *, client: str, failing: Sequence[AccountId], now: datetime) -> bool:
    """Whether another account may show that the failing ones are to blame themselves: a healthy one, or one of another
    tenant that was not tried yet."""
    values = {"client": client, "failing": list(failing), "now": now}
    return bool(connection.execute(_HAS_PROBE, values).scalar_one())


def lease_sign_in(
    connection: Connection, *, client: str, since: datetime, lease_id: LeaseId, lease: timedelta, now: datetime
) -> Lease | None:
    """Lease an account whose user has signed in since then, and that was not refreshed yet."""
    values = {"client": client, "since": since}
    return _lease_by(connection, _LEASE_SIGN_IN, values, lease_id=lease_id, until=now + lease, now=now)


def has_sign_in(connection: Connection, *, client: str, since: datetime, now: datetime) -> bool:
    """Whether ``lease_sign_in`` would find one."""
    return bool(connection.execute(_HAS_SIGN_IN, {"client": client, "since": since, "now": now}).scalar_one())


def _lease_by(
    connection: Connection,
    statement: TextClause,
    values: Mapping[str, Any],
    *,
    lease_id: LeaseId,
    until: datetime,
    now: datetime,
) -> Lease | None:
    rows = connection.execute(statement, {**values, "lease_id": lease_id, "lease_until": until, "now": now})
    found = rows.mappings().first()
    return as_lease(found, lease_id, until) if found else None
