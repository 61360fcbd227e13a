"""The leased accounts of one task: what is requested, what is released, and how the results count."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import timedelta

import structlog

from worker.domain.account import Account, AccountId, Lease
from worker.domain.errors import UnknownKey
from worker.domain.outcome import Outcome, Scope, Throttled, kind
from worker.domain.secret import Secret
from worker.service.refresh.results import RefreshResult

log = structlog.get_logger(__name__)

_NO_TIME = timedelta(0)
_RETRY_ELSEWHERE = timedelta(minutes=1)  # before another process may try, which has the key or the room
_THROTTLED_TENANT = timedelta(minutes=1)  # if Microsoft throttles a tenant without a Retry-After


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
        self.tally: Counter[str] = Counter(claimed=len(leases))
        self.error: Exception | None = None

    @property
    def accounts(self) -> list[AccountId]:
        return [lease.account_id for lease in self._leases]

    @property
    def domains(self) -> set[str]:
        return {tenant_domain(lease) for lease in self._leases}

    def postpone(self, accounts: Collection[AccountId]) -> None:
        """Send no request for these accounts: a result of theirs waits to be written."""
        if accounts:
            self.waits |= {lease: _RETRY_ELSEWHERE for lease in self._leases if lease.account_id in accounts}

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
        self.tally.update(kind(each.outcome) for each in results if each.key.account_id in written)

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
    return of.email.rpartition("@")[2]


def tenant_wait(outcome: Outcome) -> timedelta | None:
    """For how long Microsoft throttles the whole tenant."""
    if isinstance(outcome, Throttled) and outcome.scope is Scope.TENANT:
        return outcome.retry_after or _THROTTLED_TENANT
    return None
