"""Conversions between rows and values, and conditions that several statements share."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

from sqlalchemy import CursorResult

from worker.domain.account import MICROSOFT, Failure, MailServers
from worker.domain.client_type import ClientType


class Columns:
    """Columns of an ``unnest``: name and Postgres type, declared once. Binds one array per column."""

    def __init__(self, types: Mapping[str, str]) -> None:
        self._types = types

    def __str__(self) -> str:
        """For a FROM clause: ``unnest(...) AS n(...)``; ``n.number`` is the row's place, from 1."""
        arrays = ", ".join(f"CAST(:{name} AS {type_}[])" for name, type_ in self._types.items())
        return f"unnest({arrays}) WITH ORDINALITY AS n({', '.join(self._types)}, number)"

    def arrays(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
        """The statement's parameters. A column that is NULL in every row is sent as an empty array."""
        given = list(rows)
        columns = {name: [row[name] for row in given] for name in self._types}
        return {name: values if any(v is not None for v in values) else [] for name, values in columns.items()}


_LEASE_ENDS = "coalesce(lease_until, refresh_due_at)"  # older programs put it into the due time

#: The end of the lease, NULL where there is none.
LEASE_UNTIL = f"CASE WHEN lease_id IS NOT NULL THEN {_LEASE_ENDS} END"

#: A condition: no process holds a lease, or its lease has run out.
FREE = f"(lease_id IS NULL OR {_LEASE_ENDS} <= :now)"

#: A condition: the account is active, and its consumers get no token that lives. One that never had a token counts once
#: it is due or its refresh has failed.
EXPIRED = """
    (status = 'active' AND use_oauth AND (
        token_expiry <= :now OR (token_expiry IS NULL AND (refresh_due_at <= :now OR failure_count > 0))))
"""

#: The end of the grant of an account that has one. greatest() and least() skip what is NULL.
GRANT_EXPIRES_AT = """
    least(
        least(greatest(signed_in_at, last_refreshed_at), '3000-01-01') + CAST(:inactivity AS interval),
        least(signed_in_at, '3000-01-01') + least(grant_lifetime, '100 years')
    )
"""

#: The columns of an account's mail servers.
SERVERS = tuple(field.name for field in fields(MailServers))


def as_failure(row: Mapping[Any, Any]) -> Failure | None:
    if not row["failure_count"]:
        return None
    return Failure(
        kind=row["failure_kind"], code=row["failure_code"], count=row["failure_count"], since=row["failing_since"]
    )


def as_mail(row: Mapping[Any, Any]) -> MailServers:
    """A column that is NULL stands for Microsoft's."""
    return _servers(*(row[name] for name in SERVERS))


@lru_cache(maxsize=256)  # a fleet has few different ones
def _servers(*given: Any) -> MailServers:
    return replace(MICROSOFT, **{name: value for name, value in zip(SERVERS, given, strict=True) if value})


def stored_type(client_type: ClientType) -> str | None:
    """The column ``client_type``: NULL for a confidential client, as nearly always."""
    return None if client_type is ClientType.CONFIDENTIAL else client_type.value


#: A SET list: failures and strikes end.
FORGIVEN = """
    failure_kind = NULL, failure_code = NULL, failure_count = 0, failing_since = NULL, failure_claims = NULL,
    strikes = 0, struck_at = NULL
"""


def as_dicts(rows: CursorResult[Any]) -> list[dict[str, Any]]:
    """The rows as dictionaries, at a fraction of the price of ``mappings``."""
    names = tuple(rows.keys())
    return [dict(zip(names, row, strict=True)) for row in rows.all()]  # one by one they cost more
