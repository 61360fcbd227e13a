"""The schedule of the fleet as histograms, read by one query. Callers own the transaction."""

from datetime import datetime

from sqlalchemy import Connection, text

from worker.db.rows import GRANT_EXPIRES_AT
from worker.domain.account import INACTIVITY
from worker.domain.simulation import FleetAhead

_USUAL_LIFETIME = 75.0  # minutes, if no account has a token

_AHEAD = text(f"""
    WITH fleet AS (
        SELECT status, floor(extract(epoch FROM refresh_due_at - CAST(:now AS timestamptz)) / 60) AS minute,
               extract(epoch FROM token_expiry - token_obtained_at) / 60 AS lifetime,
               floor(extract(epoch FROM {GRANT_EXPIRES_AT} - CAST(:now AS timestamptz)) / 3600) AS ends
        FROM mail_credentials WHERE refresh_due_at IS NOT NULL
    )
    SELECT CASE WHEN status = 'active' THEN 'due' ELSE 'daily' END, greatest(minute, 0), count(*), avg(lifetime)
    FROM fleet WHERE minute <= :minutes GROUP BY 1, 2
    UNION ALL
    SELECT 'later', 0, count(*), avg(lifetime) FROM fleet WHERE minute > :minutes
    UNION ALL
    SELECT 'ends', ends, count(*), NULL FROM fleet WHERE ends >= 0 AND ends * 60 < :minutes GROUP BY 2
""")


def fleet_ahead(connection: Connection, *, minutes: int, now: datetime) -> FleetAhead:
    """The schedule of the next minutes."""
    found: dict[str, dict[int, int]] = {"due": {}, "daily": {}, "later": {}, "ends": {}}
    weight = total = 0.0
    for kind, at, accounts, lifetime in connection.execute(
        _AHEAD, {"now": now, "minutes": minutes, "inactivity": INACTIVITY}
    ):
        found[kind][int(at)] = accounts
        if lifetime is not None and kind != "daily":
            weight, total = weight + accounts, total + accounts * float(lifetime)
    lifetime = total / weight if weight else _USUAL_LIFETIME
    return FleetAhead(due=found["due"], daily=found["daily"], lifetime=max(1.0, lifetime), grants_ending=found["ends"])
