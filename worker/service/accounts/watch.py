"""Who needs somebody: the user, an administrator or an operator. Told once each, for as long as somebody listens."""

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

# A change is seen when it is committed, which is later than the time it bears: by a statement's time limit and the
# retries of who writes it, and by as much as clocks may differ.
_OVERLAP = timedelta(minutes=3)

_ERRORS: dict[Status, type[AccountError]] = {
    Status.REAUTH_REQUIRED: NeedsUser,
    Status.BLOCKED: BlockedByAdmin,
    Status.UNREADABLE: AccountInactive,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionNeeded:
    """An account that does not get well by itself.

    ``code`` is that of the error its readers get, ``reason`` Microsoft's; ``claims`` is the challenge to pass to the
    authorization endpoint, if there was one; ``advice`` is one sentence of what to tell the user.
    """

    email: str
    status: Status
    code: str
    reason: str
    claims: str | None
    advice: str
    since: datetime


class Watch:
    """One listener's place in what happens. Not thread-safe."""

    def __init__(self, database: Database, since: datetime | None) -> None:
        self._database = database
        self._since = since
        self._told: set[tuple[UUID, datetime | None]] = set()  # of what the next poll may find again

    def poll(self) -> list[AttentionNeeded]:
        """What has not been told yet, oldest first; nothing, and a warning, while Postgres is away."""
        after = self._since and self._since - _OVERLAP
        try:
            with self._database.begin() as connection:
                rows = watch.changed_since(connection, after)
        except Unavailable as error:
            log.warning("Accounts that need attention cannot be looked up", reason=str(error))
            return []
        news = [row for row in rows if (row["id"], row["status_changed_at"]) not in self._told]
        self._told = {(row["id"], row["status_changed_at"]) for row in rows}
        known = [self._since, *(row["status_changed_at"] for row in rows)]
        self._since = max((instant for instant in known if instant is not None), default=None)
        return [_needed(row) for row in news]


class Attention:
    """Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def watch(self, since: datetime | None) -> Watch:
        """A new listener: first those that need attention now, or do so since an instant; then as it happens."""
        return Watch(self._database, since)


def _needed(row: RowMapping) -> AttentionNeeded:
    status, reason = Status(row["status"]), row["failure_code"] or ""
    code = _ERRORS[status].code
    return AttentionNeeded(
        email=row["email"],
        status=status,
        code=code,
        reason=reason,
        claims=row["failure_claims"],
        advice=advice(code, reason),
        since=row["since"],
    )
