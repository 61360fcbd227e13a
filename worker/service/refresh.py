"""Spends claims: claim, open, ask; settlement.py writes back. Beat, consumers and operators all come through here."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import uuid4

import structlog

from worker.db import credentials
from worker.db.session import Database
from worker.domain.credential import Account, Claim, LeaseId
from worker.domain.errors import UnreadableSecret, WorkerError
from worker.domain.outcome import Outcome, Transient, kind
from worker.identity import Identity
from worker.service.recovery import Recovery
from worker.service.settlement import Settlement, Spent, Trigger
from worker.vault import Purpose, Vault

log = structlog.get_logger(__name__)

# Connect, silence and discovery limits of one question. A claim that could not be answered within its lease is left to
# the next holder, or two would ask at once.
_LONGEST_QUESTION = timedelta(seconds=40)


class Refresher:
    """Refreshes accounts of one process. Thread-safe; make it after a fork and close it."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        identity: Identity,
        recovery: Recovery,
        settlement: Settlement,
        utcnow: Callable[[], datetime],
        lease: timedelta,
        batch_size: int,
        threads: int,
    ) -> None:
        self._database = database
        self._vault = vault
        self._identity = identity
        self._recovery = recovery
        self._settlement = settlement
        self._utcnow = utcnow
        self._lease = lease
        self._batch_size = batch_size
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="refresh")

    def batches_due(self, *, at_most: int) -> int:
        """How many batches the due accounts fill, up to ``at_most``."""
        with self._database.begin() as connection:
            due = credentials.count_due(connection, limit=at_most * self._batch_size, now=self._utcnow())
        return -(-due // self._batch_size)

    def refresh_due(self) -> dict[str, int]:
        """Refresh one batch of due accounts. Returns how many claims ended how.

        1. Bring home what an outage of the database has left in the outbox.
        2. Claim the longest overdue, in a transaction of its own.
        3. Ask Microsoft about each, many at a time, with no transaction open.
        4. Write back whatever has been answered by then, in one statement; meanwhile the next answers gather.
        5. After each commit, publish to the cache.
        """
        waiting = self._recovery.drain()
        claims = [claim for claim in self._claim_due() if claim.account_id not in waiting]
        tally: Counter[str] = Counter(claimed=len(claims))
        questions = [self._pool.submit(self._spend, claim) for claim in claims]
        failure: Exception | None = None
        for group in _as_answered(questions):
            try:
                tally.update(kind(spent.outcome) for spent in self._settlement.settle(group, Trigger.SCHEDULE))
            except Exception as error:  # noqa: BLE001 - raised below; the next group has answers of its own to save
                failure = error
        if failure:
            raise failure
        return dict(tally)

    def refresh_one(self, account: Account, trigger: Trigger) -> Outcome | None:
        """Refresh an account now, due or not; None if somebody else holds it or it has changed meanwhile."""
        if account.id in self._recovery.drain():
            return None
        with self._database.begin() as connection:
            claim = credentials.claim_one(
                connection,
                account.id,
                version=account.version,
                lease_id=_new_lease(),
                lease=self._lease,
                now=self._utcnow(),
            )
        spent = self._spend(claim) if claim else None
        if spent is None or not self._settlement.settle([spent], trigger):
            return None
        return spent.outcome

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _claim_due(self) -> list[Claim]:
        with self._database.begin() as connection:
            return credentials.claim_due(
                connection, lease_id=_new_lease(), limit=self._batch_size, lease=self._lease, now=self._utcnow()
            )

    def _spend(self, claim: Claim) -> Spent | None:
        """Open one claim's refresh token and ask. Nothing an account holds may stop its batch."""
        if self._utcnow() > claim.lease_until - _LONGEST_QUESTION:
            return None  # waited too long for its turn; due again when the lease ends
        try:
            token = self._vault.open(claim.refresh_token, claim.account_id, Purpose.REFRESH_TOKEN)
        except UnreadableSecret as error:
            self._quarantine(claim, error)
            return None
        at, started = self._utcnow(), time.perf_counter()
        try:
            outcome = self._identity.refresh(
                token, client=claim.client, authority=claim.authority, scopes=claim.scopes, now=self._utcnow
            )
        except Exception as error:  # a poison account backs off like a failing one, and the others go on
            log.exception("Refresh failed unexpectedly", email=claim.email, error=type(error).__name__)
            outcome = Transient(code="internal_error")
        latency = timedelta(seconds=max(0.0, time.perf_counter() - started))
        return Spent(claim=claim, refresh_token=token, outcome=outcome, at=at, latency=latency)

    def _quarantine(self, claim: Claim, error: UnreadableSecret) -> None:
        log.error("Refresh token cannot be opened; account set aside", email=claim.email, reason=str(error))
        # If Postgres is away just now, the next holder of the lease finds the same and sets it aside then.
        with suppress(WorkerError), self._database.begin() as connection:
            credentials.quarantine(connection, claim, code=error.code, now=self._utcnow())


def _new_lease() -> LeaseId:
    return LeaseId(uuid4())


def _as_answered(questions: Sequence[Future[Spent | None]]) -> Iterator[list[Spent]]:
    """Groups of whatever has been answered since the last group; the slower the commit, the larger the group."""
    pending = set(questions)
    while pending:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        group = [spent for future in done if (spent := future.result()) is not None]
        if group:
            yield group
