"""Which accounts this process may refresh: each is leased in Postgres for a limited time."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import uuid4

import structlog

from worker.db import leases as rows
from worker.db import probes
from worker.db.session import Database
from worker.domain.account import Account, AccountId, Lease, LeaseId, email_domain
from worker.domain.binding import binding_of
from worker.domain.errors import BackingOff, UnknownKey, UnreadableSecret, WorkerError
from worker.domain.outcome import Outcome, Scope, Throttled
from worker.domain.token import Secret
from worker.service.refresh.outbox import Outbox
from worker.service.refresh.results import RefreshResult
from worker.vault import Purpose, Vault

log = structlog.get_logger(__name__)

# Connect, response and discovery limits of one request. With less than this left of a lease no request is begun: the
# next holder of the lease might send a second one at the same time.
_REQUEST_LIMIT = timedelta(seconds=40)
_NO_TIME = timedelta(0)
_RETRY_ELSEWHERE = timedelta(minutes=1)  # before another process may try, which has the key or the room
_THROTTLED_TENANT = timedelta(minutes=1)  # if Microsoft throttles a tenant without a Retry-After


class Leases:
    """Leases accounts, opens their refresh tokens, and releases what was not refreshed. Thread-safe.

    An account whose result waits in the outbox is not leased: the refresh token in its row is spent.
    """

    def __init__(
        self,
        *,
        database: Database,
        outbox: Outbox,
        vault: Vault,
        utcnow: Callable[[], datetime],
        duration: timedelta,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._vault = vault
        self._utcnow = utcnow
        self._duration = duration

    def deliver_pending(self) -> None:
        """Write the results that wait in the outbox. Their accounts may stay leased until then."""
        self._outbox.deliver()

    def check_writable(self) -> None:
        """Raise DatabaseUnavailable if Postgres is read-only: no account could be leased there."""
        with self._database.begin() as connection:
            rows.check_writable(connection)

    def count_due(self, client: str, limit: int) -> int:
        """How many accounts of an app registration are due, counting no further than ``limit``."""
        with self._database.begin() as connection:
            return rows.count_due(connection, client=client, limit=limit, now=self._utcnow())

    def acquire_due(self, client: str, limit: int, *, in_backlog: bool) -> list[Lease]:
        """Lease the longest overdue accounts of an app registration, up to ``limit``."""
        with self._database.begin() as connection:
            leased = rows.lease_due(
                connection,
                client=client,
                lease_id=_new_id(),
                limit=limit,
                lease=self._duration,
                now=self._utcnow(),
                in_backlog=in_backlog,
            )
        return self._without_pending(leased)

    def acquire_probe(self, client: str, *, failing: Sequence[AccountId]) -> list[Lease]:
        """Lease the account that shows best whether the app registration works, due or not. ``failing``: the accounts
        that make it doubtful."""
        with self._database.begin() as connection:
            leased = probes.lease_probe(
                connection,
                client=client,
                failing=failing,
                lease_id=_new_id(),
                lease=self._duration,
                now=self._utcnow(),
            )
        return self._without_pending([leased] if leased else [])

    def acquire_sign_in(self, client: str, *, since: datetime) -> list[Lease]:
        """Lease an account whose user has signed in since then, for its first refresh."""
        with self._database.begin() as connection:
            leased = probes.lease_sign_in(
                connection, client=client, since=since, lease_id=_new_id(), lease=self._duration, now=self._utcnow()
            )
        return self._without_pending([leased] if leased else [])

    def _without_pending(self, leased: list[Lease]) -> list[Lease]:
        """Release the leases of accounts whose result waits in the outbox."""
        pending = self._outbox.deliver_for([lease.account_id for lease in leased]) if leased else {}
        if not pending:
            return leased
        self.release({lease: _RETRY_ELSEWHERE for lease in leased if lease.account_id in pending})
        return [lease for lease in leased if lease.account_id not in pending]

    def acquire(self, account: Account) -> Lease | None:
        """Lease one account, due or not; None if it has changed since it was read, or is leased.

        Raises BackingOff if Postgres refuses a result of the account that waits in the outbox.
        """
        pending = self._outbox.deliver_for([account.id])
        if pending.get(account.id):
            raise BackingOff(account.email, "pending_result", _RETRY_ELSEWHERE)
        if pending:
            return None  # its row has just changed
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
        """The refresh token; None if the lease ends too soon for a request, or if the token does not open.

        A token that is damaged or bound to other terms makes its account ``unreadable``. Raises UnknownKey if the token
        is sealed under a key that this process does not have.
        """
        if self._utcnow() > lease.lease_until - _REQUEST_LIMIT:
            return None  # due again when the lease ends
        try:
            return self._vault.open(lease.refresh_token, lease.account_id, Purpose.REFRESH_TOKEN, binding_of(lease))
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


log = structlog.get_logger(__name__)


class Batch:
    """Leases are requested, or released after a wait; a lease that was neither is released at once.

    ``throttled``: domains for which no request is sent, and for how long.
    """

    def __init__(
        self,
        leases: Sequence[Lease],
        *,
        open_token: Callable[[Lease], Secret | None],
        is_stopped: Callable[[], bool],
    ) -> None:
        self._leases = leases
        self._open = open_token
        self._is_stopped = is_stopped
        self._requested: set[AccountId] = set()
        self.waits: dict[Lease, timedelta] = {}  # of the leases to be released
        self.throttled: dict[str, timedelta] = {}
        self.tally: Counter[str] = Counter(leased=len(leases))
        self.error: Exception | None = None

    @property
    def domains(self) -> set[str]:
        return {tenant_domain(lease) for lease in self._leases}

    def tokens(self) -> Iterator[tuple[Lease, Secret]]:
        """The leases to be requested, each with its refresh token. Looks before each whether the batch has stopped."""
        for lease in self._leases:
            if lease in self.waits:
                continue
            if self.error or self._is_stopped():
                return
            if self.throttled and (wait := self.throttled.get(tenant_domain(lease))):
                self.waits[lease] = wait
            elif token := self._opened(lease):
                self._requested.add(lease.account_id)
                yield lease, token

    def note(self, results: Sequence[RefreshResult]) -> None:
        """Take from results what concerns the accounts that are still to be requested."""
        for result in results:
            if wait := tenant_wait(result.outcome):
                self.throttled[tenant_domain(result.key)] = wait

    def count(self, results: Sequence[RefreshResult], written: Collection[AccountId]) -> None:
        """Count the results that were written."""
        self.tally.update(each.outcome.kind for each in results if each.key.account_id in written)

    def unrequested(self) -> dict[Lease, timedelta]:
        """The leases to be released, and the wait of each."""
        left = {lease: _NO_TIME for lease in self._leases if lease.account_id not in self._requested}
        return left | self.waits

    def finish(self) -> Counter[str]:
        """How many leases ended how. Raises the first error, now that all responses under way are written."""
        if self.error:
            raise self.error
        if returned := len(self.unrequested()):
            self.tally["returned"] = returned
        return self.tally

    def _opened(self, lease: Lease) -> Secret | None:
        try:
            token = self._open(lease)
        except UnknownKey as error:
            log.error("Refresh token cannot be opened here", email=lease.email, reason=str(error))
            self.waits[lease] = _RETRY_ELSEWHERE
            return None
        if token is None:
            self._requested.add(lease.account_id)  # set aside, or its lease is about to end: nothing to release
        return token


def tenant_domain(of: Account | Lease) -> str:
    """Stands for the tenant, which a token request to ``/common`` does not name."""
    return email_domain(of.email)


def tenant_wait(outcome: Outcome) -> timedelta | None:
    """For how long Microsoft throttles the whole tenant."""
    if isinstance(outcome, Throttled) and outcome.scope is Scope.TENANT:
        return outcome.retry_after or _THROTTLED_TENANT
    return None
