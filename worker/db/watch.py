"""Accounts that need attention, and since when. Callers own the transaction."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, RowMapping, text

from worker.domain.account import NEEDS_ATTENTION, Status

_STATES = ", ".join(f"'{status}'" for status in Status if status in NEEDS_ATTENTION)
# The constants are those of a partial index: what is well is not looked at.
_NEEDED = f"""
    SELECT id, email, status, failure_code, failure_claims, status_changed_at,
           coalesce(status_changed_at, failing_since, updated_at) AS since
    FROM mail_credentials WHERE status IN ({_STATES})
"""
_ALL = text(f"{_NEEDED} ORDER BY status_changed_at NULLS FIRST, id")
# Two ranges of the index; as one condition they would read all of it.
_LATELY = text(f"""
    {_NEEDED} AND status_changed_at IS NULL
    UNION ALL
    {_NEEDED} AND status_changed_at >= :since ORDER BY status_changed_at NULLS FIRST, id
""")


def changed_since(connection: Connection, since: datetime | None) -> Sequence[RowMapping]:
    """The accounts that have needed attention since an instant or later, or since an unknown time; all without one.

    Oldest first.
    """
    rows = connection.execute(_LATELY, {"since": since}) if since else connection.execute(_ALL)
    return rows.mappings().all()
