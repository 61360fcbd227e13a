"""The ledger: requests to Microsoft and their outcomes, without a secret. Callers own the transaction.

``refresh_events`` has a row per request that failed, changed an account's state, or was made for an operator or after a
rejection. The others are plain successes: many in a row of ``refresh_successes``, eight bytes each.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, RowMapping, text

from worker.domain.account import AccountId

_RECORD = text("""
    INSERT INTO refresh_events (account_id, at, client, trigger, outcome, code, latency_ms, correlation_id,
                                fingerprint_before, fingerprint_after)
    SELECT * FROM unnest(
        CAST(:account_id AS uuid[]), CAST(:at AS timestamptz[]), CAST(:client AS text[]), CAST(:trigger AS text[]),
        CAST(:outcome AS text[]), CAST(:code AS text[]), CAST(:latency_ms AS int[]), CAST(:correlation_id AS text[]),
        CAST(:fingerprint_before AS text[]), CAST(:fingerprint_after AS text[]))
""")

_RECORD_SUCCESSES = text("""
    INSERT INTO refresh_successes (at, client, trigger, refreshes)
    VALUES (:at, :client, :trigger, CAST(:refreshes AS bigint[]))
""")

# A plain success is in no index by account. The account's row says when the last one was, so only the groups before it
# are read. Each is in order, and width_bucket() looks the account up in few steps.
_SUCCESSES_SHOWN = timedelta(hours=12)
_LATEST = text("""
    SELECT at, client, trigger, outcome, code, latency_ms, correlation_id, fingerprint_before, fingerprint_after FROM (
        (SELECT * FROM refresh_events WHERE account_id = :id ORDER BY id DESC LIMIT :limit)
        UNION ALL
        (SELECT NULL, :id, at, client, trigger, 'refreshed', 'ok', CAST(refresh & :mask AS int), NULL, NULL, NULL
         FROM refresh_successes, coalesce(refreshes[width_bucket(:highest, refreshes)], 0) AS refresh
         WHERE at > (SELECT last_refreshed_at FROM mail_credentials WHERE id = :id) - CAST(:shown AS interval)
           AND at < (SELECT last_refreshed_at FROM mail_credentials WHERE id = :id) + interval '5 minutes'
           AND refresh BETWEEN :lowest AND :highest
         ORDER BY at DESC LIMIT :limit)
    ) AS events ORDER BY at DESC LIMIT :limit
""")

_LATENCY_BITS = 16
LATENCY_MASK = (1 << _LATENCY_BITS) - 1  #: of the milliseconds in a plain success


@dataclass(slots=True, kw_only=True)
class RefreshEvent:
    """One request and its outcome. Fingerprints are keyed hashes of the refresh token sent and the one received."""

    account_id: AccountId
    at: datetime
    client: str
    trigger: str
    outcome: str
    code: str
    latency_ms: int
    correlation_id: str | None
    fingerprint_before: str
    fingerprint_after: str | None


class Success(NamedTuple):
    """One plain success."""

    account_id: AccountId
    client: str
    at: datetime
    latency_ms: int


_FIELDS = tuple(field.name for field in fields(RefreshEvent))


def record(connection: Connection, events: Sequence[RefreshEvent]) -> None:
    """Append events."""
    if events:
        connection.execute(_RECORD, {name: [getattr(event, name) for event in events] for name in _FIELDS})


def record_successes(connection: Connection, successes: Sequence[Success], *, trigger: str) -> None:
    """Append plain successes, in one row per app registration. Its instant is that of the first request."""
    groups = defaultdict[str, list[Success]](list)
    for success in successes:
        groups[success.client].append(success)
    for client, group in groups.items():
        at, refreshes = min(each.at for each in group), sorted(map(_packed, group))
        values = {"at": at, "client": client, "trigger": trigger, "refreshes": refreshes}
        connection.execute(_RECORD_SUCCESSES, values)


def latest(connection: Connection, account: AccountId, *, limit: int) -> Sequence[RowMapping]:
    """The account's newest events, newest first. Plain successes are those of the last hours before its last one."""
    lowest = _number(account) << _LATENCY_BITS
    found = {"lowest": lowest, "highest": lowest | LATENCY_MASK, "mask": LATENCY_MASK}
    rows = connection.execute(_LATEST, {"id": account, **found, "shown": _SUCCESSES_SHOWN, "limit": limit})
    return rows.mappings().all()


def last_granted(connection: Connection, account: AccountId, *, trigger: str, since: datetime) -> datetime | None:
    """When a refresh for this reason last gave a token, if that was after ``since``. Knows no plain success."""
    statement = text("""
        SELECT at FROM refresh_events
        WHERE account_id = :id AND trigger = :trigger AND outcome = 'refreshed' AND at > :since
        ORDER BY id DESC LIMIT 1
    """)
    found: datetime | None = connection.execute(statement, {"id": account, "trigger": trigger, "since": since}).scalar()
    return found


def maintain(connection: Connection, *, event_days: int, success_days: int, now: datetime) -> int:
    """Make the partitions of the coming days, and keep so many days with today. Returns how many were dropped."""
    statement = text("SELECT maintain_ledger(:now, :event_days, :success_days)")
    values = {"now": now, "event_days": event_days, "success_days": success_days}
    return int(connection.execute(statement, values).scalar_one())


def _packed(success: Success) -> int:
    return _number(success.account_id) << _LATENCY_BITS | min(success.latency_ms, LATENCY_MASK)


def _number(account: AccountId) -> int:
    """The first six bytes of the id. Among a million accounts it is most likely that no two share them."""
    return int.from_bytes(account.bytes[:6], signed=True)
