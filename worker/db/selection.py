"""Which accounts a selection means, in SQL. Callers own the transaction."""

from typing import Any, Literal, TypeAlias, get_args

from sqlalchemy import Connection, text

from worker.db.rows import GRANT_EXPIRES_AT
from worker.domain.account import INACTIVITY, AccountId, Status
from worker.domain.selection import Selection

Order: TypeAlias = Literal["email", "due", "expires", "since"]

#: The orders of a list; accounts of equal rank are in order of e-mail.
ORDERS: tuple[Order, ...] = get_args(Order)

# greatest() skips what is NULL.
#: When the account came into its state or began to fail.
SINCE = "greatest(failing_since, status_changed_at)"
_RANKS: dict[Order, str] = {
    "email": "",
    "due": "refresh_due_at ASC NULLS LAST, ",
    "expires": "token_expiry ASC NULLS FIRST, ",
    "since": f"{SINCE} DESC NULLS LAST, ",
}


_HAS_GRANT = f"status <> '{Status.REAUTH_REQUIRED}' AND refresh_token IS NOT NULL"


def select(
    connection: Connection, selection: Selection, *, order: Order = "email", limit: int | None = None
) -> list[AccountId]:
    """The ids of the selected accounts, the first ``limit`` of them in this order."""
    condition, values = _condition(selection)
    statement = text(f"SELECT id FROM mail_credentials WHERE {condition} ORDER BY {_RANKS[order]} email LIMIT :limit")
    return [AccountId(id_) for id_ in connection.execute(statement, {**values, "limit": limit}).scalars()]


def _condition(selection: Selection) -> tuple[str, dict[str, Any]]:
    """The condition of a WHERE clause, and its values."""
    # The address has a single @, see ``domain.account.normalize_email``.
    given: list[tuple[object, str, dict[str, Any]]] = [
        (selection.emails, "email = ANY(:emails)", {"emails": list(selection.emails or ())}),
        (
            selection.statuses,
            "status = ANY(:statuses)",
            {"statuses": [each.value for each in selection.statuses or ()]},
        ),
        (selection.clients, "client = ANY(:clients)", {"clients": list(selection.clients or ())}),
        (selection.domains, "split_part(email, '@', 2) = ANY(:domains)", {"domains": list(selection.domains or ())}),
        (selection.codes, "failure_code = ANY(:codes)", {"codes": list(selection.codes or ())}),
        (selection.labels, "labels && CAST(:labels AS text[])", {"labels": list(selection.labels or ())}),
        (selection.failing or None, "failure_count > 0", {}),
        (selection.since, f"{SINCE} >= :since", {"since": selection.since}),
        (
            selection.expiring_before,
            f"{_HAS_GRANT} AND {GRANT_EXPIRES_AT} < :expiring_before",
            {"expiring_before": selection.expiring_before, "inactivity": INACTIVITY},
        ),
    ]
    used = [(sql, values) for condition, sql, values in given if condition is not None]
    conditions = " AND ".join(sql for sql, _ in used) or "true"
    return conditions, {name: value for _, values in used for name, value in values.items()}
