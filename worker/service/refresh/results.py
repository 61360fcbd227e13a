"""Writes results of refreshes: plan, commit, publish. A granted token is not lost while Postgres is unavailable."""

import enum
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from typing import TypeAlias

import stamina
import structlog
from sqlalchemy import Connection

from worker.db import events, leases
from worker.db.events import RefreshEvent, Success
from worker.db.session import Database
from worker.domain.account import AccountId, Lease, Status
from worker.domain.binding import binding_of
from worker.domain.cache_entry import CacheEntry
from worker.domain.errors import Unavailable, WorkerError
from worker.domain.outcome import Refreshed
from worker.domain.policy import AccountUpdate, RefreshPolicy
from worker.domain.token import AccessToken, as_text
from worker.identity import RefreshAttempt
from worker.service.accounts.reader import AccountReader
from worker.service.refresh.outbox import Outbox
from worker.service.tokens.cache import TokenCache
from worker.vault import Purpose, Vault

log = structlog.get_logger(__name__)

# A short interruption is waited out. After that the outbox is safer than the memory of this process. Without an outbox
# waiting longer is all that is left.
_briefly = stamina.RetryingCaller(attempts=3, timeout=3.0, wait_initial=0.2, wait_max=1.0).on(Unavailable)
_stubbornly = stamina.RetryingCaller(attempts=12, timeout=30.0, wait_initial=0.5, wait_max=5.0).on(WorkerError)


class Trigger(enum.StrEnum):
    """Why an account was refreshed; goes into the ledger."""

    SCHEDULE = "schedule"
    CONSUMER = "consumer"
    OPERATOR = "operator"
    REJECTED = "rejected"  #: a mail server has rejected the consumer's token


#: One refresh of a leased account and its outcome.
RefreshResult: TypeAlias = RefreshAttempt[Lease]
#: A result, and what it changes in the row.
Write: TypeAlias = tuple[RefreshResult, AccountUpdate]


class ResultWriter:
    """The one place that writes results, for schedule, consumers and operators alike. Thread-safe."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        accounts: AccountReader,
        cache: TokenCache,
        outbox: Outbox,
        policy: RefreshPolicy,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._vault = vault
        self._accounts = accounts
        self._cache = cache
        self._outbox = outbox
        self._policy = policy
        self._utcnow = utcnow

    def write(self, results: Sequence[RefreshResult], trigger: Trigger) -> dict[AccountId, CacheEntry | None]:
        """Commit results, then publish them. Returns the entries of the accounts whose result counts; None if an entry
        could not be read back.

        Raises Unavailable if neither Postgres nor Redis could take new tokens.
        """
        now = self._utcnow()
        writes = [(result, self._update(result, now)) for result in results]
        versions = self._persist(writes, trigger, now)
        entries = {
            update.account_id: _entry(result, update)
            for result, update in writes
            if _is_granted(result) and versions.get(update.account_id) == update.version
        }
        # The row says what became of the others: of failures, and of accounts that an operator has changed meanwhile.
        others = {account: None for account in versions if account not in entries}
        stored = self._as_stored(list(others))
        self._cache.publish([*entries.values(), *stored.values()])
        return others | entries | stored

    def _as_stored(self, accounts: Sequence[AccountId]) -> dict[AccountId, CacheEntry]:
        """Entries with the failures of accounts, so that no consumer finds them out again."""
        with suppress(Unavailable):  # or the next consumer reads the row
            return {entry.account_id: entry for entry in self._accounts.entries(accounts)} if accounts else {}
        return {}

    def _persist(self, writes: Sequence[Write], trigger: Trigger, now: datetime) -> dict[AccountId, int]:
        """Several tries: a commit with rotated tokens cannot be replaced by another request to Microsoft."""
        versions, left = self._write_most(writes, trigger, now)
        return versions | self._rescue(left, trigger, now) if left else versions

    def _write_most(
        self, writes: Sequence[Write], trigger: Trigger, now: datetime
    ) -> tuple[dict[AccountId, int], Sequence[Write]]:
        """Returns the versions of what was written, and what could not be written."""
        try:
            # The closure takes no arguments: stamina logs them.
            versions = _briefly(lambda: self._commit(writes, trigger, now))
        except WorkerError as error:
            if len(writes) > 1 and not isinstance(error, Unavailable):
                half = len(writes) // 2  # one row makes the statement fail for all; halves find it
                (first, refused), (second, others) = (
                    self._write_most(part, trigger, now) for part in (writes[:half], writes[half:])
                )
                return first | second, [*refused, *others]
            for _, update in writes:
                log.error("Error persisting tokens to database", email=update.email, reason=str(error))
            return {}, writes
        _log_written(writes, versions)
        return versions, []

    def _rescue(self, writes: Sequence[Write], trigger: Trigger, now: datetime) -> dict[AccountId, int]:
        """Granted tokens may exist nowhere else: into the outbox with them, or wait for Postgres."""
        granted = [update for result, update in writes if _is_granted(result)]
        if not self._outbox.add(granted):
            versions = _stubbornly(lambda: self._commit(writes, trigger, now))
            _log_written(writes, versions)
            return versions
        for update in granted:
            log.warning("Token kept in the outbox until the database takes it", email=update.email)
        return {update.account_id: update.version for update in granted}

    def _commit(self, writes: Sequence[Write], trigger: Trigger, now: datetime) -> dict[AccountId, int]:
        with self._database.begin() as connection:
            versions = leases.persist(connection, [update for _, update in writes], now=now)
            # An earlier try may have been committed, and its confirmation lost.
            missing = [update for _, update in writes if update.access_token and update.account_id not in versions]
            stored = leases.find_stored(connection, missing) if missing else {}
            self._record(
                connection, [result for result, update in writes if update.account_id not in stored], trigger, versions
            )
        return versions | stored

    def _record(
        self, connection: Connection, results: Sequence[RefreshResult], trigger: Trigger, written: Container[AccountId]
    ) -> None:
        plain, others = list[Success](), list[RefreshEvent]()
        for result in results:
            if result.key.account_id in written and _is_plain(result, trigger):
                plain.append(_success(result))
            else:
                others.append(self._event(result, trigger))
        events.record_successes(connection, plain, trigger=trigger.value)
        events.record(connection, others)

    def _update(self, result: RefreshResult, now: datetime) -> AccountUpdate:
        lease, outcome = result.key, result.outcome
        update = self._policy.plan(lease, outcome, now=now)
        if isinstance(outcome, Refreshed):
            account, seal, bound_to = lease.account_id, self._vault.seal, binding_of(lease)
            update.access_token = seal(outcome.access_token, account, Purpose.ACCESS_TOKEN, bound_to)
            update.obtained_at, update.expires_at = outcome.obtained_at, outcome.expires_at
            update.client_type = result.client_type
            if outcome.refresh_token:
                update.refresh_token = seal(outcome.refresh_token, account, Purpose.REFRESH_TOKEN, bound_to)
                update.replaces = sha256(lease.refresh_token).digest()
        return update

    def _event(self, result: RefreshResult, trigger: Trigger) -> RefreshEvent:
        account, outcome = result.key.account_id, result.outcome
        rotated = outcome.refresh_token if isinstance(outcome, Refreshed) else None
        return RefreshEvent(
            account_id=account,
            at=result.requested_at,
            client=result.key.client,
            trigger=trigger.value,
            outcome=outcome.kind,
            code=outcome.code,
            latency_ms=_milliseconds(result),
            correlation_id=outcome.correlation_id,
            fingerprint_before=self._vault.fingerprint(result.request.refresh_token, account),
            fingerprint_after=self._vault.fingerprint(rotated, account) if rotated else None,
        )


def _log_written(writes: Sequence[Write], versions: Mapping[AccountId, int]) -> None:
    logger = log.bind()  # once, not for every line
    for result, update in writes:
        email, outcome = update.email, result.outcome
        if update.account_id not in versions:
            logger.info("Answer dropped: another worker got there first", email=email, outcome=outcome.kind)
        elif isinstance(outcome, Refreshed):
            logger.info("Token persisted to database", email=email, expires_at=outcome.expires_at.isoformat())
        else:
            logger.warning("Token not refreshed", email=email, outcome=outcome.kind, code=outcome.code)


def _is_plain(result: RefreshResult, trigger: Trigger) -> bool:
    """Whether the refresh is one of the many that change no state."""
    lease = result.key
    return (
        _is_granted(result)
        and trigger in (Trigger.SCHEDULE, Trigger.CONSUMER)
        and lease.status is Status.ACTIVE
        and lease.failure is None
    )


def _success(result: RefreshResult) -> Success:
    return Success(result.key.account_id, result.key.client, result.requested_at, _milliseconds(result))


def _milliseconds(result: RefreshResult) -> int:
    return round(result.latency.total_seconds() * 1000)


def _is_granted(result: RefreshResult) -> bool:
    return isinstance(result.outcome, Refreshed)


def _entry(result: RefreshResult, update: AccountUpdate) -> CacheEntry:
    lease, outcome = result.key, result.outcome
    assert isinstance(outcome, Refreshed)
    return CacheEntry(
        account_id=lease.account_id,
        email=lease.email,
        status=update.status,
        version=update.version,
        client=lease.client,
        authority=lease.authority,
        scopes=lease.scopes,
        token=AccessToken(
            email=lease.email,
            secret=outcome.access_token,
            obtained_at=outcome.obtained_at,
            expires_at=outcome.expires_at,
            version=update.version,
        ),
        refresh_token=as_text(update.refresh_token or lease.refresh_token),
        mail=lease.mail,
    )
