"""Which accounts this process may refresh: each is leased in Postgres for a limited time."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from uuid import uuid4

import structlog

from worker.db import leases as rows
from worker.db.session import Database
from worker.domain.account import Account, Lease, LeaseId
from worker.domain.errors import UnknownKey, UnreadableSecret, WorkerError
from worker.domain.secret import Secret
from worker.vault import Purpose, Vault

log = structlog.get_logger(__name__)

# Connect, response and discovery limits of one request. With less than this left of a lease no request is begun: the
# next holder of the lease might send a second one at the same time.
_REQUEST_LIMIT = timedelta(seconds=40)


class Leases:
    """Leases accounts, opens their refresh tokens, and releases what was not refreshed. Thread-safe."""

    def __init__(
        self, *, database: Database, vault: Vault, utcnow: Callable[[], datetime], duration: timedelta
    ) -> None:
        self._database = database
        self._vault = vault
        self._utcnow = utcnow
        self._duration = duration

    def count_due(self, client: str, limit: int) -> int:
        """How many accounts of an app registration are due, counting no further than ``limit``."""
        with self._database.begin() as connection:
            return rows.count_due(connection, client=client, limit=limit, now=self._utcnow())

    def acquire_due(self, client: str, limit: int, *, in_backlog: bool) -> list[Lease]:
        """Lease the longest overdue accounts of an app registration, up to ``limit``."""
        with self._database.begin() as connection:
            return rows.lease_due(
                connection,
                client=client,
                lease_id=_new_id(),
                limit=limit,
                lease=self._duration,
                now=self._utcnow(),
                in_backlog=in_backlog,
            )

    def acquire(self, account: Account) -> Lease | None:
        """Lease one account, due or not; None if it has changed since it was read, or is leased."""
        with self._database.begin() as connection:
            return rows.lease_one(
                connection,
                account.id,
                version=account.version,
                due_at=account.due_at,
                lease_id=_new_id(),
                lease=self._duration,
                now=self._utcnow(),
            )

    def release(self, waits: Mapping[Lease, timedelta]) -> None:
        """End leases without a result; each account is due again after its wait."""
        if waits:
            with self._database.begin() as connection:
                rows.release(connection, waits, now=self._utcnow())

    def open(self, lease: Lease) -> Secret | None:
        """The refresh token; None if the lease ends too soon for a request, or if the token is damaged.

        A damaged token makes its account ``unreadable``. Raises UnknownKey if the token is sealed under a key that this
        process does not have.
        """
        if self._utcnow() > lease.lease_until - _REQUEST_LIMIT:
            return None  # due again when the lease ends
        try:
            return self._vault.open(lease.refresh_token, lease.account_id, Purpose.REFRESH_TOKEN)
        except UnknownKey as error:
            raise UnknownKey(f"{lease.email}: {error}") from None
        except UnreadableSecret as error:
            self._set_aside(lease, error)
            return None

    def _set_aside(self, lease: Lease, error: UnreadableSecret) -> None:
        log.error("Refresh token cannot be opened; account set aside", email=lease.email, reason=str(error))
        try:
            with self._database.begin() as connection:
                rows.set_aside(connection, lease, code=error.code, now=self._utcnow())
        except WorkerError as failure:  # the next holder of the lease finds the same, and sets the account aside then
            log.warning("Account could not be set aside", email=lease.email, reason=str(failure))


def _new_id() -> LeaseId:
    return LeaseId(uuid4())
