"""Results that came in while Postgres was unavailable: sealed in Redis until they are written like any other result."""

import base64
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from worker.cache import LONGEST_RESULT, OutboxStore
from worker.db import leases as rows
from worker.db.session import Database
from worker.domain.account import AccountId, Status
from worker.domain.client_type import ClientType
from worker.domain.errors import StorageError, Unavailable, UnknownKey, UnreadableSecret
from worker.domain.policy import AccountUpdate
from worker.domain.token import Sealed, Secret
from worker.service.accounts.reader import AccountReader
from worker.service.refresh.fleet import Fleet
from worker.service.tokens.cache import TokenCache
from worker.vault import Purpose, Vault

log = structlog.get_logger(__name__)

# Enough for what minutes of an outage leave. A longer outage may leave a million results, which take many minutes: they
# must not keep batches from the other accounts, nor a task running until Celery ends it.
_DELIVERY_LIMIT = timedelta(seconds=5)


class Outbox:
    """Thread-safe. A value is one AccountUpdate, sealed as a whole: a writer to Redis cannot make one."""

    def __init__(
        self,
        *,
        database: Database,
        store: OutboxStore,
        fleet: Fleet,
        vault: Vault,
        accounts: AccountReader,
        cache: TokenCache,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._fleet = fleet
        self._vault = vault
        self._accounts = accounts
        self._cache = cache
        self._utcnow = utcnow
        self._cursor = 0  # where the next delivery begins

    def add(self, updates: Sequence[AccountUpdate]) -> bool:
        """Keep updates with new tokens until Postgres takes them; False if Redis is unavailable as well."""
        if not updates:
            return True
        values = {each.account_id: self._seal(each) for each in updates}
        try:
            self._store.put(values)
        except Unavailable as error:
            log.error("Outbox cannot be written", accounts=len(updates), reason=str(error))
            return False
        return True

    def deliver(self) -> None:
        """Write what waits to Postgres. Called before every lease. Raises ConfigurationError in a foreign namespace.

        Ends after some seconds. The next call goes on from there: a result that cannot be written delays no other.
        """
        self._fleet.claim()
        until = self._utcnow() + _DELIVERY_LIMIT
        try:
            for cursor, values in self._store.pages(self._cursor):
                self._deliver(values)
                self._cursor = cursor
                if self._utcnow() >= until:
                    break
        except Unavailable as error:
            # Without Redis nothing waits there. Without Postgres the lease that follows fails by itself.
            log.warning("Outbox cannot be drained", reason=str(error))

    def deliver_all(self) -> int:
        """Write all that waits, however long it takes. Returns how many results still wait. Raises Unavailable."""
        self._fleet.claim()
        for _cursor, values in self._store.pages():
            self._deliver(values)
        # Other workers deliver as well, and may have held some rows: those are tried once more.
        return sum(len(values) - len(self._deliver(values)) for _cursor, values in self._store.pages())

    def deliver_for(self, accounts: Collection[AccountId]) -> dict[AccountId, bool]:
        """Write what waits for these accounts. Returns the accounts for which something did, and whether Postgres
        refuses it.

        Their row has changed, or still lacks a refresh token that has replaced the stored one: no request may be sent
        with the token that the caller has read. Raises ConfigurationError in a foreign namespace.
        """
        self._fleet.check()
        try:
            values = self._store.get_many(accounts)
            if not values:
                return {}
            refused = set[AccountId]()
            opened = self._open_all(values)
            self._write(opened, values, refused)
        except Unavailable as error:
            log.warning("Outbox cannot be drained", reason=str(error))
            return {}
        return {update.account_id: update.account_id in refused for update in opened}

    def forget(self, accounts: Collection[AccountId]) -> None:
        """Delete what waits for accounts that are no more. Raises Unavailable."""
        self._store.delete(accounts)

    def size(self) -> int:
        """How many accounts' results wait. Raises Unavailable while Redis is unavailable."""
        return self._store.size()

    def _deliver(self, values: Mapping[AccountId, bytes]) -> set[AccountId]:
        """Returns the accounts whose value is gone. Raises Unavailable."""
        return self._write(self._open_all(values), values, set())

    def _write(
        self, updates: Sequence[AccountUpdate], values: Mapping[AccountId, bytes], refused: set[AccountId]
    ) -> set[AccountId]:
        """Commit, then delete from the outbox, then publish what the cache cannot have."""
        versions = self._persist(updates, refused) if updates else {}
        if versions:
            self._store.discard({account: values[account] for account in versions})
        for update in updates:
            if versions.get(update.account_id):
                assert update.expires_at
                log.info("Token persisted to database", email=update.email, expires_at=update.expires_at.isoformat())
            elif update.account_id in versions:
                log.info("Token from the outbox dropped: a newer one is stored", email=update.email)
        # With the expected version the entry was published when it was put here.
        moved = [each.account_id for each in updates if versions.get(each.account_id) not in (None, each.version)]
        if moved:
            self._cache.publish(self._accounts.entries(moved))
        return set(versions)

    def _persist(self, updates: Sequence[AccountUpdate], refused: set[AccountId]) -> dict[AccountId, int | None]:
        """The versions after the write; None where something newer is stored. Rows that another process holds are left
        out, and so are those that Postgres refuses: they go into ``refused``."""
        try:
            with self._database.begin() as connection:
                locked = rows.lock(connection, [update.account_id for update in updates])
                mine = [update for update in updates if update.account_id in locked]
                versions = rows.persist(connection, mine, now=self._utcnow()) if mine else {}
            return {account: versions.get(account) for account in locked}
        except StorageError as error:
            if len(updates) == 1:
                log.error("Outbox entry cannot be stored", email=updates[0].email, reason=str(error))
                refused.add(updates[0].account_id)
                return {}
        half = len(updates) // 2  # one row makes the statement fail for all; halves find it
        return self._persist(updates[:half], refused) | self._persist(updates[half:], refused)

    def _open_all(self, values: Mapping[AccountId, bytes]) -> list[AccountUpdate]:
        """The values that open. A value under an unknown key waits for a worker that has it; any other is set aside."""
        opened, foreign = list[AccountUpdate](), dict[AccountId, bytes]()
        for account, value in values.items():
            try:
                opened.append(self._open(account, value))
            except UnknownKey:
                continue
            except UnreadableSecret as error:
                foreign[account] = value
                log.error("Outbox entry set aside", account_id=str(account), bytes=len(value), reason=str(error))
        if foreign:
            self._store.set_aside(foreign)
        return opened

    def _open(self, account: AccountId, value: bytes) -> AccountUpdate:
        """Raises UnreadableSecret, or UnknownKey."""
        if len(value) > LONGEST_RESULT:
            raise UnreadableSecret("larger than any value of a worker")
        return _decode(account, self._vault.open(Sealed(value), account, Purpose.PENDING_RESULT))

    def _seal(self, update: AccountUpdate) -> bytes:
        return self._vault.seal(_encode(update), update.account_id, Purpose.PENDING_RESULT)


def _encode(update: AccountUpdate) -> Secret:
    assert update.access_token
    assert update.obtained_at
    assert update.expires_at
    return Secret(
        json.dumps(
            {
                "email": update.email,
                "based_on": update.based_on,
                "replaces": update.replaces and update.replaces.hex(),
                "access_token": base64.b64encode(update.access_token).decode(),
                "refresh_token": update.refresh_token and base64.b64encode(update.refresh_token).decode(),
                "obtained_at": update.obtained_at.isoformat(),
                "expires_at": update.expires_at.isoformat(),
                "due_at": update.due_at.isoformat(),
                "client_type": update.client_type.value,
            }
        )
    )


def _decode(account: AccountId, text: Secret) -> AccountUpdate:
    """Raises UnreadableSecret. Only workers can seal the text, so a malformed one comes from another version."""
    try:
        data: dict[str, Any] = json.loads(text.reveal())
        refresh_token, replaces = data["refresh_token"], data["replaces"]
        return AccountUpdate(
            account_id=account,
            email=data["email"],
            based_on=data["based_on"],
            lease_id=None,
            status=Status.ACTIVE,
            due_at=datetime.fromisoformat(data["due_at"]),
            access_token=Sealed(base64.b64decode(data["access_token"])),
            obtained_at=datetime.fromisoformat(data["obtained_at"]),
            expires_at=datetime.fromisoformat(data["expires_at"]),
            refresh_token=Sealed(base64.b64decode(refresh_token)) if refresh_token else None,
            replaces=bytes.fromhex(replaces) if replaces else None,
            client_type=ClientType(data.get("client_type", ClientType.CONFIDENTIAL)),  # older programs write none
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UnreadableSecret("a pending result is malformed") from None
