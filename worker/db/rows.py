"""Between rows and values."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

from sqlalchemy import CursorResult

from worker.domain.account import MICROSOFT, Failure, MailServers

_LEASE_ENDS = "coalesce(lease_until, refresh_due_at)"  # older programs put it into the due time

#: The end of the lease, NULL where there is none.
LEASE_UNTIL = f"CASE WHEN lease_id IS NOT NULL THEN {_LEASE_ENDS} END"

#: A condition: nobody is at it, or whoever was has died.
FREE = f"(lease_id IS NULL OR {_LEASE_ENDS} <= :now)"

_SERVERS = tuple(field.name for field in fields(MailServers))


def as_failure(row: Mapping[Any, Any]) -> Failure | None:
    if not row["failure_count"]:
        return None
    return Failure(
        kind=row["failure_kind"], code=row["failure_code"], count=row["failure_count"], since=row["failing_since"]
    )


def as_mail(row: Mapping[Any, Any]) -> MailServers:
    """A column that is NULL stands for Microsoft's."""
    return _servers(*(row[name] for name in _SERVERS))


@lru_cache(maxsize=256)  # a fleet has few
def _servers(*given: Any) -> MailServers:
    return replace(MICROSOFT, **{name: value for name, value in zip(_SERVERS, given, strict=True) if value})


def as_columns(records: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """Turn records into one array per column, as unnest takes them."""
    rows = list(records)
    return {name: [row[name] for row in rows] for name in rows[0]}


def as_dicts(rows: CursorResult[Any]) -> list[dict[str, Any]]:
    """What ``mappings`` gives, at a fraction of its price per field."""
    names = tuple(rows.keys())
    return [dict(zip(names, row, strict=True)) for row in rows.all()]  # one by one they cost more
