"""Between rows and values."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import CursorResult, RowMapping

from worker.domain.credential import AccountId, Failure


def as_failure(row: RowMapping) -> Failure | None:
    if not row["failure_count"]:
        return None
    return Failure(
        kind=row["failure_kind"], code=row["failure_code"], count=row["failure_count"], since=row["failing_since"]
    )


def as_columns(records: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """Turn records into one array per column, as unnest takes them."""
    rows = list(records)
    return {name: [row[name] for row in rows] for name in rows[0]}


def versions(rows: CursorResult[Any]) -> dict[AccountId, int]:
    return {AccountId(row.id): row.version for row in rows}
