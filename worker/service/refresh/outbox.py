"""Saves answers that Postgres could not take, in the outbox, and brings them home when it is back."""

import base64
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from worker.cache import OutboxStore
from worker.db import late_writes
from worker.db.late_writes import PendingResult
from worker.db.leases import AccountUpdate
from worker.db.session import Database
from worker.domain.account import AccountId
from worker.domain.errors import StorageError, Unavailable, UnreadableSecret, WorkerError
from worker.domain.secret import Sealed
from worker.service.accounts.reader import AccountReader
from worker.service.tokens.cache import TokenCache

log = structlog.get_logger(__name__)

# Enough for what minutes of an outage leave. After a longer one there may be a million, which take many minutes: they
# must not keep batches from claiming the others, nor their tasks until Celery kills them.
_AT_A_TIME = timedelta(seconds=5)
_LARGEST_VALUE = 65_536  # bytes; three sealed tokens take about 12 KB


class Outbox:
    """The way of rotated tokens around a database outage. Thread-safe."""

    def __init__(
        self,
        *,
        database: Database,
        outbox: OutboxStore,
        accounts: AccountReader,
        entries: TokenCache,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._accounts = accounts
        self._entries = entries
        self._utcnow = utcnow
        self._cursor = 0  # in the outbox: where the next drain begins

    def keep(self, updates: Sequence[AccountUpdate]) -> bool:
        """Keep the tokens of these updates until Postgres is back; False if Redis is away as well."""
        granted = [update.unsaved() for update in updates if update.access_token is not None]
        if not granted:
            return True
        try:
            self._outbox.add({update.account_id: _encode(update) for update in granted})
        except Unavailable as error:
            log.error("Outbox cannot be written", accounts=len(granted), reason=str(error))  # noqa: TRY400
            return False
        return True

    def follow(self, update: PendingResult, spent: Sealed) -> None:
        """Keep tokens that were got by spending others that may wait here themselves.

        Postgres knows nothing of those in between, so what it must still have is what the first of them replaced.
        Raises Unavailable without Redis, and UnreadableSecret if what waits makes no sense and is left for a human.
        """
        kept = self._outbox.get(update.account_id)
        if kept is not None:
            before = _decode(update.account_id, kept)
            # A sign-in meanwhile may have led to the same version; only the token tells the two apart.
            if before.version == update.base and before.refresh_token in (None, spent):
                rotated = update if update.refresh_token else before
                update = replace(
                    update,
                    base=before.base,
                    spent=before.spent + update.spent,  # the first may have come home just now
                    refresh_token=rotated.refresh_token,
                    previous_refresh_token=rotated.previous_refresh_token,
                )
        self._outbox.put({update.account_id: _encode(update)})

    def drain(self) -> None:
        """Write what is kept to Postgres; what Postgres has a newer token for is dropped. Called before every claim.

        Stops after some seconds. The next call goes on from there: what cannot be stored holds up nothing else.
        """
        until = self._utcnow() + _AT_A_TIME
        try:
            for cursor, kept in self._outbox.pages(self._cursor):
                self._bring_home(kept)
                self._cursor = cursor
                if self._utcnow() >= until:
                    break
        except Unavailable as error:
            # Without Redis there is nothing to wait for; without Postgres the claim that follows fails by itself.
            log.warning("Outbox cannot be drained", reason=str(error))

    def drain_all(self) -> int:
        """Likewise all of it, however long that takes. Returns how many could not be stored. Raises Unavailable."""
        left: set[AccountId] = set()
        for _cursor, kept in self._outbox.pages():
            left |= kept.keys() - self._bring_home(kept).keys()
        # Some were only held by others, who drain as well: what is still there is tried once more.
        return sum(map(self._still_waits, left))

    def waiting(self, accounts: Collection[AccountId]) -> frozenset[AccountId]:
        """Those of ``accounts`` whose newest refresh token Postgres has not got: the one before must not be spent.

        Raises Unavailable without Redis.
        """
        return self._outbox.among(accounts)

    def size(self) -> int:
        """How many accounts' tokens wait. Raises Unavailable without Redis."""
        return self._outbox.size()

    def is_waiting(self, account: AccountId) -> bool:
        """Bring home what is kept for one account; True if it still waits."""
        try:
            return self._still_waits(account)
        except Unavailable as error:
            log.warning("Outbox cannot be drained", reason=str(error))
            return False

    def _still_waits(self, account: AccountId) -> bool:
        value = self._outbox.get(account)
        return value is not None and not self._bring_home({account: value})

    def _bring_home(self, kept: Mapping[AccountId, bytes]) -> dict[AccountId, bytes]:
        """Store what can be stored, and forget it. Returns what was forgotten. Raises Unavailable."""
        updates = [update for account, value in kept.items() if (update := _read(account, value))]
        settled = self._store(updates) if updates else {}
        home = {account: kept[account] for account in settled}
        if home:
            self._outbox.discard(home)
        for update in updates:
            if settled.get(update.account_id):
                log.info("Token persisted to database", email=update.email, expires_at=update.expires_at.isoformat())
            elif update.account_id in settled:
                log.info("Token from the outbox dropped: a newer one is stored", email=update.email)
        stored = [update for update in updates if settled.get(update.account_id)]
        self._publish([update.account_id for update in stored if settled[update.account_id] != update.base + 1])
        return home

    def _publish(self, moved: Sequence[AccountId]) -> None:
        """What may be another than the cache has: under another version, what was spent would outrank it there; and of
        several refreshes the version does not tell whether somebody has paused the account in between."""
        if moved:
            self._entries.publish(self._accounts.entries(moved))

    def _store(self, updates: Sequence[PendingResult]) -> dict[AccountId, int | None]:
        """The versions they have become, None where something newer is stored; without those that must wait."""
        try:
            with self._database.begin() as connection:
                held = late_writes.hold(connection, [update.account_id for update in updates])
                mine = [update for update in updates if update.account_id in held]
                stored = late_writes.restore(connection, mine, now=self._utcnow())
            return {account: stored.get(account) for account in held}
        except StorageError as error:
            if len(updates) == 1:
                _complain(updates[0].account_id, error)
                return {}
        half = len(updates) // 2  # one of them spoils it for all, and is soon alone
        return self._store(updates[:half]) | self._store(updates[half:])


def _read(account: AccountId, value: bytes) -> PendingResult | None:
    try:
        return _decode(account, value)
    except UnreadableSecret as error:
        _complain(account, error)
        return None


def _complain(account: AccountId, error: WorkerError) -> None:
    """It stays where it is, for a human: it may be the only copy. The others go on."""
    log.error("Outbox entry cannot be stored", account_id=str(account), reason=str(error))


def _encode(update: PendingResult) -> bytes:
    tokens = (update.access_token, update.refresh_token, update.previous_refresh_token)
    return json.dumps(
        {
            "email": update.email,
            "base": update.base,
            "version": update.version,
            "spent": base64.b64encode(update.spent).decode(),
            "tokens": [token and base64.b64encode(token).decode() for token in tokens],
            "times": [moment.isoformat() for moment in (update.obtained_at, update.expires_at, update.due_at)],
        }
    ).encode()


def _decode(account: AccountId, value: bytes) -> PendingResult:
    try:
        if len(value) > _LARGEST_VALUE:
            raise ValueError("too large")  # noqa: TRY301 - as good as any other malformation
        data: dict[str, Any] = json.loads(value)
        access_token, refresh_token, previous = (token and Sealed(base64.b64decode(token)) for token in data["tokens"])
        obtained_at, expires_at, due_at = map(datetime.fromisoformat, data["times"])
        if not access_token:
            raise ValueError("no access token")  # noqa: TRY301 - as good as any other malformation
        return PendingResult(
            account_id=account,
            email=data["email"],
            base=data["base"],
            version=data["version"],
            spent=base64.b64decode(data.get("spent", "")),  # an older worker has left it out
            access_token=access_token,
            refresh_token=refresh_token,
            previous_refresh_token=previous,
            obtained_at=obtained_at,
            expires_at=expires_at,
            due_at=due_at,
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise UnreadableSecret("an outbox entry is malformed") from None
