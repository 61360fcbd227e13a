"""The record of acts, without a secret. Callers own the transaction."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from worker.domain.account import AccountId
from worker.domain.audit import Act, Action, Actor

_RECORD = text("""
    INSERT INTO audit_events (at, os_user, host, program, action, detail, reason, account_id)
    SELECT :now, :user, :host, :program, :action, :detail, :reason, account
    FROM unnest(CAST(:accounts AS uuid[])) AS account
""")

# One statement changes many accounts at one instant, so that they are one act.
_ACTS = """
    SELECT a.at, a.os_user, a.host, a.program, a.action, a.detail, a.reason, count(a.account_id),
           CASE WHEN count(a.account_id) = 1 THEN min(coalesce(c.email, CAST(a.account_id AS text))) END
    FROM audit_events AS a LEFT JOIN mail_credentials AS c ON c.id = a.account_id
    WHERE {condition}
    GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY a.at DESC, max(a.id) DESC LIMIT :limit
"""


def record(
    connection: Connection,
    actor: Actor,
    action: Action,
    accounts: Sequence[AccountId],
    *,
    detail: str | None = None,
    now: datetime,
) -> None:
    """Append an act on accounts. An act on none is recorded if it has a ``detail``."""
    if not accounts and detail is None:
        return
    values = {
        "user": actor.user,
        "host": actor.host,
        "program": actor.program,
        "reason": actor.reason,
        "action": action.value,
        "detail": detail,
        "accounts": list[AccountId | None](accounts) or [None],
        "now": now,
    }
    connection.execute(_RECORD, values)


def acts(
    connection: Connection, *, account: AccountId | None = None, since: datetime | None = None, limit: int
) -> list[Act]:
    """The newest acts, newest first: those on one account, those since an instant."""
    conditions = [*(["a.account_id = :account"] if account else []), *(["a.at >= :since"] if since else [])]
    statement = text(_ACTS.format(condition=" AND ".join(conditions) or "true"))
    names = tuple(Act.__dataclass_fields__)
    rows = connection.execute(statement, {"account": account, "since": since, "limit": limit})
    return [Act(**dict(zip(names, row, strict=True))) for row in rows]


def prune(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete up to ``limit`` acts that are older. Returns how many there were."""
    statement = text(
        "DELETE FROM audit_events WHERE id IN (SELECT id FROM audit_events WHERE at < :before LIMIT :limit)"
    )
    return connection.execute(statement, {"before": before, "limit": limit}).rowcount
