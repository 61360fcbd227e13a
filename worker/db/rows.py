"""Between rows and values."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import CursorResult, RowMapping

from worker.domain.credential import MICROSOFT, AccountId, Failure, MailServers


def as_failure(row: RowMapping) -> Failure | None:
    if not row["failure_count"]:
        return None
    return Failure(
        kind=row["failure_kind"], code=row["failure_code"], count=row["failure_count"], since=row["failing_since"]
    )


def as_mail(row: RowMapping) -> MailServers:
    """A column that is NULL stands for Microsoft's."""
    return MailServers(
        imap_host=row["imap_host"] or MICROSOFT.imap_host,
        imap_port=row["imap_port"] or MICROSOFT.imap_port,
        smtp_host=row["smtp_host"] or MICROSOFT.smtp_host,
        smtp_port=row["smtp_port"] or MICROSOFT.smtp_port,
        pop_host=row["pop_host"] or MICROSOFT.pop_host,
        pop_port=row["pop_port"] or MICROSOFT.pop_port,
    )


def as_columns(records: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """Turn records into one array per column, as unnest takes them."""
    rows = list(records)
    return {name: [row[name] for row in rows] for name in rows[0]}


def versions(rows: CursorResult[Any]) -> dict[AccountId, int]:
    return {AccountId(row.id): row.version for row in rows}
