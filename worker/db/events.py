"""The ledger: one line per question asked of Microsoft, without a secret in it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import Connection, RowMapping, text

from worker.domain.account import AccountId

_RECORD = text("""
    INSERT INTO refresh_events (account_id, at, trigger, outcome, code, latency_ms, correlation_id,
                                fingerprint_before, fingerprint_after)
    SELECT * FROM unnest(
        CAST(:account_id AS uuid[]), CAST(:at AS timestamptz[]), CAST(:trigger AS text[]), CAST(:outcome AS text[]),
        CAST(:code AS text[]), CAST(:latency_ms AS int[]), CAST(:correlation_id AS text[]),
        CAST(:fingerprint_before AS text[]), CAST(:fingerprint_after AS text[]))
""")


@dataclass(slots=True, kw_only=True)
class RefreshEvent:
    """One question and its answer. Fingerprints are keyed hashes of the refresh token sent and the one received."""

    account_id: AccountId
    at: datetime
    trigger: str
    outcome: str
    code: str
    latency_ms: int
    correlation_id: str | None
    fingerprint_before: str
    fingerprint_after: str | None


_FIELDS = tuple(field.name for field in fields(RefreshEvent))


def record(connection: Connection, events: Sequence[RefreshEvent]) -> None:
    """Append to the ledger."""
    connection.execute(_RECORD, {name: [getattr(event, name) for event in events] for name in _FIELDS})


def latest(connection: Connection, account: AccountId, *, limit: int) -> Sequence[RowMapping]:
    """The account's newest lines, newest first."""
    statement = text(
        "SELECT at, trigger, outcome, code, latency_ms, correlation_id, fingerprint_before, fingerprint_after"
        " FROM refresh_events WHERE account_id = :id ORDER BY id DESC LIMIT :limit"
    )
    return connection.execute(statement, {"id": account, "limit": limit}).mappings().all()


def last_granted(connection: Connection, account: AccountId, *, trigger: str, since: datetime) -> datetime | None:
    """When a refresh for this reason last gave a token, if that was after ``since``."""
    statement = text("""
        SELECT at FROM refresh_events
        WHERE account_id = :id AND trigger = :trigger AND outcome = 'refreshed' AND at > :since
        ORDER BY id DESC LIMIT 1
    """)
    found: datetime | None = connection.execute(statement, {"id": account, "trigger": trigger, "since": since}).scalar()
    return found


def prune(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete up to ``limit`` lines older than ``before``; returns how many there were."""
    statement = text(
        "DELETE FROM refresh_events WHERE id IN (SELECT id FROM refresh_events WHERE at < :before LIMIT :limit)"
    )
    return connection.execute(statement, {"before": before, "limit": limit}).rowcount
