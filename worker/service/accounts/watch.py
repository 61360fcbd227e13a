"""Events of accounts that need their user, an administrator or an operator. Each event is returned once."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import RowMapping

from worker.db import watch
from worker.db.session import Database
from worker.domain.account import Status
from worker.domain.advice import advice
from worker.domain.errors import AccountError, AccountInactive, BlockedByAdmin, NeedsUser, Unavailable

log = structlog.get_logger(__name__)

# A change becomes visible when it is committed, which is later than its time stamp: by a statement's time limit, by the
# retries of the writer, and by the difference between clocks.
_OVERLAP = timedelta(minutes=3)

_ERRORS: dict[Status, type[AccountError]] = {
    Status.REAUTH_REQUIRED: NeedsUser,
    Status.BLOCKED: BlockedByAdmin,
    Status.UNREADABLE: AccountInactive,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionNeeded:
    """An account that does not recover by itself.

    ``code`` is that of the error that its readers get, ``reason`` is Microsoft's code. ``claims`` is the challenge to
    pass to the authorization endpoint, if there was one. ``advice`` is one sentence for the user. ``since`` is an aware
    instant in UTC.
    """

    email: str
    status: Status
    code: str
    reason: str
    claims: str | None
    advice: str
    since: datetime


class AccountWatch:
    """Follows the accounts that need attention: those that do now, or do so since an instant; then as it happens.

    Not thread-safe.
    """

    def __init__(self, database: Database, since: datetime | None = None) -> None:
        self._database = database
        self._since = since
        self._returned: set[tuple[UUID, datetime | None]] = set()  # that the next poll may find again

    def poll(self) -> list[AttentionNeeded]:
        """The events since the last poll, oldest first; none, and a warning, while Postgres is unavailable."""
        after = self._since and self._since - _OVERLAP
        try:
            with self._database.begin() as connection:
                rows = watch.changed_since(connection, after)
        except Unavailable as error:
            log.warning("Accounts that need attention cannot be looked up", reason=str(error))
            return []
        new = [row for row in rows if (row["id"], row["status_changed_at"]) not in self._returned]
        self._returned = {(row["id"], row["status_changed_at"]) for row in rows}
        known = [self._since, *(row["status_changed_at"] for row in rows)]
        self._since = max((instant for instant in known if instant is not None), default=None)
        return [_event(row) for row in new]


def _event(row: RowMapping) -> AttentionNeeded:
    status, reason = Status(row["status"]), row["failure_code"] or ""
    code = _ERRORS[status].code
    return AttentionNeeded(
        email=row["email"],
        status=status,
        code=code,
        reason=reason,
        claims=row["failure_claims"],
        advice=advice(code, reason, row["email"]),
        since=row["since"],
    )
