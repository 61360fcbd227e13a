"""Shows in Redis whose refresh token is about to be spent, for those who cannot see the leases in Postgres."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import timedelta

from worker.cache import Locks
from worker.domain.account import Lease
from worker.domain.errors import Unavailable
from worker.service.refresh.outbox import Outbox

_ASKED = timedelta(seconds=5)  # until whoever is asking without Postgres is likely to be done
_ANSWERED = timedelta(minutes=1)  # bringing the answer home sets a due time of its own


class Custody:
    """Of claimed accounts, from the claim until their answers are settled. Thread-safe.

    Without Redis it is nobody's: then nobody can refresh without Postgres, and the lease there is enough.
    """

    def __init__(self, *, locks: Locks, recovery: Outbox, lease: timedelta) -> None:
        self._locks = locks
        self._recovery = recovery
        self._lease = lease

    def take(self, claimed: Sequence[Lease]) -> dict[Lease, timedelta]:
        """Take the claims of one lease. Returns those that must not be spent, and when they may be due again: somebody
        who cannot reach Postgres is asking about them, or has got an answer that Postgres does not know of."""
        if not claimed:
            return {}
        accounts = [claim.account_id for claim in claimed]
        try:
            asked = self._locks.hold(accounts, claimed[0].lease_id, lease=self._lease)
            answered = self._recovery.waiting(accounts)  # only now: who has given the lock back has put it there before
        except Unavailable:
            return {}
        if not (answered or asked):
            return {}
        spans = dict.fromkeys(answered, _ANSWERED) | dict.fromkeys(asked, _ASKED)
        return {claim: spans[claim.account_id] for claim in claimed if claim.account_id in spans}

    def end(self, claimed: Collection[Lease]) -> None:
        """After the answers of claims of one lease are published: whoever waits for the lock finds the new entry."""
        if claimed:
            with suppress(Unavailable):  # it ends by itself, with the lease
                self._locks.release([claim.account_id for claim in claimed], next(iter(claimed)).lease_id)
