"""Settles spent claims: plan, persist, publish, tell. What Microsoft has given is not lost because Postgres is away."""

import enum
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import stamina
import structlog

from worker.db import events, late_writes, leases
from worker.db.events import RefreshEvent
from worker.db.leases import AccountUpdate
from worker.db.session import Database
from worker.domain.account import AccountId, Lease, Status
from worker.domain.errors import Unavailable, WorkerError
from worker.domain.microsoft import AGED_OUT
from worker.domain.outcome import Outcome, ReauthRequired, Refreshed, kind
from worker.domain.policy import RefreshPolicy
from worker.domain.secret import Secret
from worker.domain.token import AccessToken, CacheEntry
from worker.service.accounts.reader import AccountReader
from worker.service.refresh.outbox import Outbox
from worker.service.tokens.cache import TokenCache
from worker.vault import Purpose, Vault

log = structlog.get_logger(__name__)

# A blip is waited out. After that the outbox is safer than this process's memory; without it, patience is all there is.
_shortly = stamina.RetryingCaller(attempts=3, timeout=3.0, wait_initial=0.2, wait_max=1.0).on(Unavailable)
_stubbornly = stamina.RetryingCaller(attempts=12, timeout=30.0, wait_initial=0.5, wait_max=5.0).on(WorkerError)


class Trigger(enum.StrEnum):
    """Who wanted a refresh; goes into the ledger."""

    SCHEDULE = "schedule"
    CONSUMER = "consumer"
    OPERATOR = "operator"
    REJECTED = "rejected"  #: a consumer whose mail server has refused the token


@dataclass(slots=True, kw_only=True)
class RefreshResult:
    """A claim and Microsoft's answer to it."""

    claim: Lease
    refresh_token: Secret
    outcome: Outcome
    at: datetime
    latency: timedelta


@dataclass(slots=True)
class _Record:
    """What one answer changes, ready to be written."""

    spent: RefreshResult
    update: AccountUpdate
    event: RefreshEvent

    @property
    def account_id(self) -> AccountId:
        return self.spent.claim.account_id


class ResultWriter:
    """The one code path that writes refreshed tokens, whoever asked for them. Thread-safe."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        accounts: AccountReader,
        entries: TokenCache,
        recovery: Outbox,
        policy: RefreshPolicy,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._vault = vault
        self._accounts = accounts
        self._entries = entries
        self._recovery = recovery
        self._policy = policy
        self._utcnow = utcnow

    def settle(self, group: Sequence[RefreshResult], trigger: Trigger) -> list[RefreshResult]:
        """Write answers back and publish what was won. Returns those whose answer counts.

        Raises Unavailable if neither Postgres nor Redis could take new tokens.
        """
        now = self._utcnow()
        records = [self._record(spent, trigger, now) for spent in group]
        versions = self._persist(records, now)
        won = [record for record in records if record.account_id in versions]
        # What has become of the others, the row tells: of failures, and where an operator has said something meanwhile.
        plain = [_is_new(record) and versions[record.account_id] == record.update.version for record in won]
        renewed = [_entry(record) for record, is_plain in zip(won, plain, strict=True) if is_plain]
        others = [record for record, is_plain in zip(won, plain, strict=True) if not is_plain]
        self._entries.publish([*renewed, *self._noted(others)])
        return [record.spent for record in won]

    def _noted(self, others: Sequence[_Record]) -> list[CacheEntry]:
        """Entries that say what is wrong, so that however many ask, nobody has to find it out again."""
        with suppress(Unavailable):  # or the next to ask notes it
            return self._accounts.entries([record.account_id for record in others]) if others else []
        return []

    def _persist(self, records: Sequence[_Record], now: datetime) -> dict[AccountId, int]:
        """The commit that carries rotated tokens is worth several tries; asking Microsoft again is no substitute."""
        versions, left = self._write_most(records, now)
        return versions | self._rescue(left, now) if left else versions

    def _write_most(self, records: Sequence[_Record], now: datetime) -> tuple[dict[AccountId, int], Sequence[_Record]]:
        """Returns what could be written, and what could not."""
        try:
            # No arguments but the closure: stamina logs what it is given.
            versions = _shortly(lambda: self._write(records, now))
        except WorkerError as error:
            if len(records) > 1 and not isinstance(error, Unavailable):
                half = len(records) // 2  # one row spoils it for all, and is soon alone
                (first, refused), (second, others) = (
                    self._write_most(part, now) for part in (records[:half], records[half:])
                )
                return first | second, [*refused, *others]
            for record in records:
                email = record.spent.claim.email
                log.error("Error persisting tokens to database", email=email, reason=str(error))  # noqa: TRY400
            return {}, records
        _tell(records, versions)
        return versions, []

    def _rescue(self, records: Sequence[_Record], now: datetime) -> dict[AccountId, int]:
        """What is in hand may exist nowhere else: into the outbox, or wait for Postgres."""
        if not self._recovery.keep([record.update for record in records]):
            versions = _stubbornly(lambda: self._write(records, now))
            _tell(records, versions)
            return versions
        kept = [record for record in records if _is_new(record)]
        for record in kept:
            log.warning("Token kept in the outbox until the database takes it", email=record.spent.claim.email)
        return {record.account_id: record.update.version for record in kept}

    def _write(self, records: Sequence[_Record], now: datetime) -> dict[AccountId, int]:
        with self._database.begin() as connection:
            versions = leases.persist(connection, [record.update for record in records], now=now)
            if len(versions) == len(records):
                events.record(connection, [record.event for record in records])
                return versions
            lost = [record.update for record in records if _is_new(record) and record.account_id not in versions]
            # The try before may have been committed, and its confirmation lost.
            stored = leases.find_stored(connection, lost) if lost else {}
            late = [update.unsaved() for update in lost if update.claim.account_id not in stored]
            restored = late_writes.restore(connection, late, now=now)
            if unstored := [record.event for record in records if record.account_id not in stored]:
                events.record(connection, unstored)
        return versions | stored | restored

    def _record(self, spent: RefreshResult, trigger: Trigger, now: datetime) -> _Record:
        return _Record(spent, self._seal(spent, now), self._event(spent, trigger))

    def _seal(self, spent: RefreshResult, now: datetime) -> AccountUpdate:
        transition = self._policy.plan(spent.claim, spent.outcome, now=now)
        account, outcome = spent.claim.account_id, transition.refreshed
        rotated = outcome.refresh_token if outcome else None
        seal = self._vault.seal
        return AccountUpdate(
            claim=spent.claim,
            status=transition.status,
            due_at=transition.due_at,
            failure=transition.failure,
            claims=spent.outcome.claims if isinstance(spent.outcome, ReauthRequired) else None,
            strikes=transition.strikes,
            struck_at=transition.struck_at,
            aged_out=spent.outcome.code in AGED_OUT and spent.claim.status is Status.ACTIVE,
            access_token=seal(outcome.access_token, account, Purpose.ACCESS_TOKEN) if outcome else None,
            obtained_at=outcome.obtained_at if outcome else None,
            expires_at=outcome.expires_at if outcome else None,
            refresh_token=seal(rotated, account, Purpose.REFRESH_TOKEN) if rotated else None,
            previous_refresh_token=(
                seal(spent.refresh_token, account, Purpose.PREVIOUS_REFRESH_TOKEN) if rotated else None
            ),
        )

    def _event(self, spent: RefreshResult, trigger: Trigger) -> RefreshEvent:
        account, outcome = spent.claim.account_id, spent.outcome
        rotated = outcome.refresh_token if isinstance(outcome, Refreshed) else None
        return RefreshEvent(
            account_id=account,
            at=spent.at,
            trigger=trigger.value,
            outcome=kind(outcome),
            code=outcome.code,
            latency_ms=round(spent.latency.total_seconds() * 1000),
            correlation_id=outcome.correlation_id,
            fingerprint_before=self._vault.fingerprint(spent.refresh_token, account),
            fingerprint_after=self._vault.fingerprint(rotated, account) if rotated else None,
        )


def _tell(records: Sequence[_Record], versions: Mapping[AccountId, int]) -> None:
    told = log.bind()  # once, not for every line
    for record in records:
        email, outcome = record.spent.claim.email, record.spent.outcome
        if record.account_id not in versions:
            told.info("Answer dropped: another worker got there first", email=email, outcome=kind(outcome))
        elif isinstance(outcome, Refreshed):
            told.info("Token persisted to database", email=email, expires_at=outcome.expires_at.isoformat())
        else:
            told.warning("Token not refreshed", email=email, outcome=kind(outcome), code=outcome.code)


def _is_new(record: _Record) -> bool:
    return isinstance(record.spent.outcome, Refreshed)


def _entry(record: _Record) -> CacheEntry:
    claim, outcome, version = record.spent.claim, record.spent.outcome, record.update.version
    assert isinstance(outcome, Refreshed)
    return CacheEntry(
        account_id=claim.account_id,
        email=claim.email,
        status=record.update.status,
        version=version,
        client=claim.client,
        authority=claim.authority,
        scopes=claim.scopes,
        token=AccessToken(
            email=claim.email,
            secret=outcome.access_token,
            obtained_at=outcome.obtained_at,
            expires_at=outcome.expires_at,
            version=version,
        ),
        refresh_token=record.update.refresh_token or claim.refresh_token,
        mail=claim.mail,
    )
