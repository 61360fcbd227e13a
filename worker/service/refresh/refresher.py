"""Spends claims: claim, open, ask; settlement.py writes back. Beat, consumers and operators all come through here."""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import count
from uuid import uuid4

import structlog

from worker.cache import RateLimiter, TenantThrottle
from worker.db import leases
from worker.db.session import Database
from worker.domain.account import DEFAULT_CLIENT, Account, Lease, LeaseId
from worker.domain.errors import BackingOff, ClientMisconfigured, Unavailable, UnknownKey, UnreadableSecret, WorkerError
from worker.domain.outcome import Outcome, Scope, Throttled, kind
from worker.domain.secret import Secret
from worker.domain.turns import in_turn
from worker.identity import Answered, Identity, Question
from worker.service.custody import Custody
from worker.service.refresh.breakers import CircuitBreakers
from worker.service.refresh.outbox import Outbox
from worker.service.refresh.results import RefreshResult, ResultWriter, Trigger
from worker.service.surprise import foreseen
from worker.vault import Purpose, Vault

log = structlog.get_logger(__name__)

# Connect, silence and discovery limits of one question. A claim that could not be answered within its lease is left to
# the next holder, or two would ask at once.
_LONGEST_QUESTION = timedelta(seconds=40)

_CLAIMING = timedelta(seconds=30)  # a batch ends within this, a lease and a question, whatever the rate
_BUSY = timedelta(minutes=1)  # until somebody else, or this process in another state, may have more luck
_TENANT_PAUSE = timedelta(minutes=1)  # if Microsoft throttles a tenant without saying for how long


_FEW = 2  # are no crowd

_Asked = tuple[Lease, Secret, datetime]  # what is asked about, with which token, and since when


class Refresher:
    """Refreshes accounts of one process. Thread-safe; make it after a fork and close it."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        identity: Identity,
        recovery: Outbox,
        settlement: ResultWriter,
        gate: CircuitBreakers,
        custody: Custody,
        limiter: RateLimiter,
        pauses: TenantThrottle,
        utcnow: Callable[[], datetime],
        lease: timedelta,
        batch_size: int,
    ) -> None:
        self._database = database
        self._vault = vault
        self._identity = identity
        self._recovery = recovery
        self._settlement = settlement
        self._gate = gate
        self._custody = custody
        self._limiter = limiter
        self._pauses = pauses
        self._utcnow = utcnow
        self._lease = lease
        self._batch_size = batch_size
        self._stopping = threading.Event()
        self._sweeps = count()

    def batches_due(self, *, at_most: int) -> list[str]:
        """The app registration of each batch to be sent, up to ``at_most``, in this order: they take turns, or one's
        backlog would stand in front of the others.

        Brings home first what an outage of the database has left in the outbox: such accounts may stay leased, and then
        no batch would come to do it.
        """
        self._recovery.drain()
        batches: dict[str, int] = {}
        for client in self._identity.clients:
            due = self._count_due(client, at_most * self._batch_size)
            batches[client] = -(-self._gate.outlook(client, due) // self._batch_size)
        return in_turn(batches, at_most, first=next(self._sweeps))

    def refresh_due(self, client: str = DEFAULT_CLIENT) -> dict[str, int]:
        """Refresh one batch of due accounts of an app registration. Returns how many claims ended how.

        1. Bring home what an outage of the database has left in the outbox.
        2. Ask for admission: breaker and rate decide how many of those due may go.
        3. Claim the longest overdue, in a transaction of its own.
        4. Show in Redis what is claimed, and give back what somebody without Postgres has been quicker with.
        5. Ask Microsoft about each, many at a time, with no transaction open.
        6. Write back whatever has been answered by then, in one statement; meanwhile the next answers gather.
        7. After each commit, publish to the cache.
        """
        self._recovery.drain()
        tally: Counter[str] = Counter(claimed=0)
        if client not in self._identity.clients:
            log.warning("App registration is not known here; its accounts are left to other workers", client=client)
            return dict(tally)
        until = self._utcnow() + _CLAIMING
        due = self._count_due(client, self._batch_size + 1)
        left = min(due, self._batch_size)  # and no more, or permits would be taken that others need
        while left > 0 and not self._stopping.is_set() and self._utcnow() < until:
            admitted = self._gate.admit(client, left)
            if not admitted:
                break
            try:
                permitted = self._limiter.take(client, admitted)
                # Only where there is more to do than fits do they matter to each other; that the rate has left room for
                # one or two says nothing.
                claimed = self._claim_due(client, permitted, in_backlog=due > permitted > _FEW) if permitted else []
                tally.update(self._ask_all(client, claimed))
            finally:
                self._gate.withdraw(client)
            if admitted < left or len(claimed) < permitted or not permitted:
                break  # the ramp's next step is for the next sweep
            due, left = due - len(claimed), left - len(claimed)
        return dict(tally)

    def refresh_one(self, account: Account, trigger: Trigger) -> Outcome | None:
        """Refresh an account now, due or not; None if somebody else holds it or it has changed meanwhile.

        Raises ClientMisconfigured or BackingOff while the app registration's breaker is open or Microsoft wants the
        tenant left alone, except for an operator.
        """
        if self._recovery.is_waiting(account.id):
            return None
        domain = _domain(account)
        paused = self._paused(account.client, {domain})
        if paused and trigger is not Trigger.OPERATOR:
            raise BackingOff(account.email, "tenant_throttled", paused[domain])
        if account.client not in self._identity.clients:
            raise ClientMisconfigured(account.email, account.client, "unknown_client")  # here; others may know it
        admitted = self._gate.admit(account.client, 1)
        if not admitted and trigger is not Trigger.OPERATOR:
            raise self._gate.obstacle(account.client, account.email)
        try:
            if not self._limiter.take(account.client, 1):
                raise BackingOff(account.email, "rate_limited", _BUSY)
            return self._refresh_now(account, trigger)
        finally:
            if admitted:
                self._gate.withdraw(account.client)

    def stop(self) -> None:
        """Ask nothing more; what has been asked is still settled, and the rest given back."""
        self._stopping.set()

    def _refresh_now(self, account: Account, trigger: Trigger) -> Outcome | None:
        with self._database.begin() as connection:
            claim = leases.lease_one(
                connection,
                account.id,
                version=account.version,
                due_at=account.due_at,
                lease_id=_new_lease(),
                lease=self._lease,
                now=self._utcnow(),
            )
        if claim is None:
            return None
        try:
            if returned := self._custody.take([claim]):
                self._give_back(returned)
                return None
            return self._ask_one(claim, trigger)
        finally:
            self._custody.end([claim])

    def _ask_one(self, claim: Lease, trigger: Trigger) -> Outcome | None:
        try:
            token = self._open(claim)
        except UnknownKey as error:
            self._give_back({claim: _BUSY})
            raise UnknownKey(f"{claim.email}: {error}") from None
        if token is None:
            return None
        [spent] = [spent for group in self._spend(iter([(claim, token)]), [claim]) for spent in group]
        return spent.outcome if self._settle([spent], trigger) else None

    def _count_due(self, client: str, limit: int) -> int:
        with self._database.begin() as connection:
            return leases.count_due(connection, client=client, limit=limit, now=self._utcnow())

    def _claim_due(self, client: str, limit: int, *, in_backlog: bool) -> list[Lease]:
        with self._database.begin() as connection:
            return leases.lease_due(
                connection,
                client=client,
                lease_id=_new_lease(),
                limit=limit,
                lease=self._lease,
                now=self._utcnow(),
                in_backlog=in_backlog,
            )

    def _ask_all(self, client: str, claimed: Sequence[Lease]) -> Counter[str]:
        """Ask about each claim and settle the answers as they come; give back what is better not asked."""
        tally: Counter[str] = Counter(claimed=len(claimed))
        returned = self._custody.take(claimed)  # and when each is due again
        paused = self._paused(client, {_domain(claim) for claim in claimed})
        failure: Exception | None = None  # to settle: whoever is asked next might be asked for nothing

        def opened() -> Iterator[tuple[Lease, Secret]]:
            for claim in claimed:
                if returned and claim in returned:
                    continue
                ended = failure or self._stopping.is_set() or self._gate.is_open(client)
                if ended or (paused and _domain(claim) in paused):
                    returned[claim] = paused.get(_domain(claim), timedelta(0))
                elif token := self._open_or_return(claim, returned):
                    yield claim, token

        for group in self._spend(opened(), claimed):
            paused |= {_domain(one.claim): span for one in group if (span := _tenant_pause(one.outcome))}
            try:
                tally.update(kind(spent.outcome) for spent in self._settle(group, Trigger.SCHEDULE))
            except Exception as error:  # noqa: BLE001 - raised below; those under way are still saved
                failure = error
            finally:
                self._custody.end([spent.claim for spent in group])
        try:
            if returned:
                tally["returned"] = len(returned)
                self._give_back(returned)
        finally:
            if failure:
                raise failure
        return tally

    def _give_back(self, returned: Mapping[Lease, timedelta]) -> None:
        self._custody.end(returned)
        with self._database.begin() as connection:
            leases.release(connection, returned, now=self._utcnow())

    def _open(self, claim: Lease) -> Secret | None:
        """One claim's refresh token, if there is still time to spend it. What does not open is set aside.

        Raises UnknownKey if another process has sealed it under a key that this one does not have.
        """
        if self._utcnow() > claim.lease_until - _LONGEST_QUESTION:
            return None  # waited too long for its turn; due again when the lease ends
        try:
            return self._vault.open(claim.refresh_token, claim.account_id, Purpose.REFRESH_TOKEN)
        except UnknownKey:
            raise  # the account is fine; it is this process that lacks something
        except UnreadableSecret as error:
            self._quarantine(claim, error)
            return None

    def _open_or_return(self, claim: Lease, returned: dict[Lease, timedelta]) -> Secret | None:
        try:
            return self._open(claim)
        except UnknownKey as error:
            log.error("Refresh token cannot be opened here", email=claim.email, reason=str(error))  # noqa: TRY400
            returned[claim] = _BUSY  # another process may have the key
            return None

    def _spend(
        self, opened: Iterator[tuple[Lease, Secret]], expected: Sequence[Lease]
    ) -> Iterator[list[RefreshResult]]:
        """Ask about each, many at a time; groups of whatever has been answered. Exhaust it. ``expected`` are of one app
        registration."""

        def questions() -> Iterator[tuple[_Asked, Question]]:
            for claim, token in opened:
                yield (
                    (claim, token, self._utcnow()),
                    Question(refresh_token=token, client=claim.client, authority=claim.authority, scopes=claim.scopes),
                )

        endpoints = {(claim.client, claim.authority) for claim in expected}
        for group in self._identity.refresh_all(questions(), expected=endpoints, now=self._utcnow):
            spent = [self._spent(answered) for answered in group]
            self._gate.observe(expected[0].client, [(one.claim.account_id, one.outcome) for one in spent])
            yield spent

    def _spent(self, answered: Answered[_Asked]) -> RefreshResult:
        claim, token, at = answered.key
        outcome = foreseen(answered.outcome, claim.email)
        latency = timedelta(seconds=answered.seconds)
        return RefreshResult(claim=claim, refresh_token=token, outcome=outcome, at=at, latency=latency)

    def _settle(self, group: Sequence[RefreshResult], trigger: Trigger) -> list[RefreshResult]:
        settled = self._settlement.settle(group, trigger)
        # What the answers say of the others is advice: without it they are merely asked one by one.
        with suppress(Unavailable):
            self._gate.report((spent.claim.client, spent.claim.account_id, spent.outcome) for spent in group)
            for spent in group:
                if span := _tenant_pause(spent.outcome):
                    self._pauses.pause(spent.claim.client, _domain(spent.claim), span)
        return settled

    def _paused(self, client: str, domains: Collection[str]) -> dict[str, timedelta]:
        with suppress(Unavailable):
            return self._pauses.left(client, domains) if domains else {}
        return {}

    def _quarantine(self, claim: Lease, error: UnreadableSecret) -> None:
        log.error("Refresh token cannot be opened; account set aside", email=claim.email, reason=str(error))
        # If Postgres is away just now, the next holder of the lease finds the same and sets it aside then.
        with suppress(WorkerError), self._database.begin() as connection:
            leases.quarantine(connection, claim, code=error.code, now=self._utcnow())


def _new_lease() -> LeaseId:
    return LeaseId(uuid4())


def _domain(of: Account | Lease) -> str:
    """Stands for the tenant, which a token request to ``/common`` does not name."""
    return of.email.rpartition("@")[2]


def _tenant_pause(outcome: Outcome) -> timedelta | None:
    """For how long to leave the whole tenant alone."""
    if isinstance(outcome, Throttled) and outcome.scope is Scope.TENANT:
        return outcome.retry_after or _TENANT_PAUSE
    return None
