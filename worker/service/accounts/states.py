"""Changes of state by hand, for any number of accounts: pause, resume, refresh soon, disconnect, erase."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TypeAlias

import stamina

from worker.db import accounts as rows
from worker.db import removal
from worker.db.session import Database
from worker.domain.account import AccountId, Status
from worker.domain.audit import Action
from worker.domain.errors import Unavailable
from worker.service.accounts.audit import AuditLog
from worker.service.accounts.reader import AccountReader
from worker.service.refresh.outbox import Outbox
from worker.service.tokens.cache import TokenCache

#: Changes accounts and returns those that it has changed.
Change: TypeAlias = Callable[[Sequence[AccountId]], Sequence[AccountId]]

# Postgres ends one of two transactions that wait for each other: this one, or a worker's write of some of these rows.
_patiently = stamina.RetryingCaller(attempts=3, timeout=10.0, wait_initial=0.2, wait_max=1.0).on(Unavailable)

_RUNNING = f"status NOT IN ('{Status.PAUSED}', '{Status.DISCONNECTED}')"
_RESUMABLE = f"refresh_token IS NOT NULL AND use_oauth AND (status <> '{Status.ACTIVE}' OR failure_count > 0)"


class AccountStates:
    """Each change is one statement for all given accounts; then their entries are published. Thread-safe."""

    def __init__(
        self,
        *,
        database: Database,
        accounts: AccountReader,
        outbox: Outbox,
        cache: TokenCache,
        audit: AuditLog,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._outbox = outbox
        self._cache = cache
        self._audit = audit
        self._utcnow = utcnow

    def pause(self, accounts: Sequence[AccountId]) -> Sequence[AccountId]:
        """Stop refreshing accounts until they are resumed; their tokens are served while they live.

        Leaves paused and disconnected accounts as they are.
        """
        paused = _patiently(self._set, accounts, Status.PAUSED, Action.PAUSED, only=_RUNNING, due_at=None)
        self._publish(paused)
        return paused

    def resume(self, accounts: Sequence[AccountId]) -> Sequence[AccountId]:
        """Make accounts active and due, and forgive their failures.

        Leaves accounts as they are that are well, have no refresh token or do not use OAuth.
        """
        now = self._utcnow()
        resumed = _patiently(self._set, accounts, Status.ACTIVE, Action.RESUMED, only=_RESUMABLE, due_at=now)
        self._publish(resumed)  # a cached failure has lost its cause
        return resumed

    def refresh_soon(self, accounts: Sequence[AccountId]) -> Sequence[AccountId]:
        """Make accounts due, so that the workers refresh them next.

        Leaves accounts as they are that are not refreshed at all, or are being refreshed at this moment.
        """
        return _patiently(self._make_due, accounts)

    def disconnect(self, accounts: Sequence[AccountId]) -> Sequence[AccountId]:
        """Erase the tokens of accounts in Postgres and in the cache.

        Raises Unavailable if the cache could not be reached: then do it again, or the tokens there are served until
        they expire.
        """
        erased = _patiently(self._erase_tokens, accounts)
        if not self._publish(erased):
            raise Unavailable("erased from the database, but Redis could not be reached; run this again")
        return erased

    def erase(self, accounts: Sequence[AccountId]) -> Sequence[AccountId]:
        """Delete accounts with all that is known of them, in Postgres and in Redis. Returns those that were stored.

        Raises Unavailable if it could not be completed: then do it again.
        """
        self.disconnect(accounts)  # first, so that no refresh under way and no late writer brings a token back
        self._outbox.forget(accounts)
        self._cache.delete(accounts)  # before the rows, which show that there is something to erase
        erased = _patiently(self._delete, accounts)
        with suppress(Unavailable):
            self._cache.delete(accounts)  # a reader may have rebuilt one from the row, without a token
        return erased

    def _set(
        self, accounts: Sequence[AccountId], status: Status, action: Action, *, only: str, due_at: datetime | None
    ) -> Sequence[AccountId]:
        with self._database.begin() as connection:
            changed = rows.set_status(connection, accounts, status, only=only, due_at=due_at, now=self._utcnow())
            self._audit.record(connection, action, changed)
        return changed

    def _make_due(self, accounts: Sequence[AccountId]) -> Sequence[AccountId]:
        with self._database.begin() as connection:
            due = rows.set_due(connection, accounts, now=self._utcnow())
            self._audit.record(connection, Action.REFRESHED, due)
        return due

    def _erase_tokens(self, accounts: Sequence[AccountId]) -> Sequence[AccountId]:
        with self._database.begin() as connection:
            # Disconnected ones as well: the cache may still have their tokens.
            erased = rows.set_status(connection, accounts, Status.DISCONNECTED, due_at=None, now=self._utcnow())
            rows.erase_tokens(connection, erased)
            self._audit.record(connection, Action.DISCONNECTED, erased)
        return erased

    def _delete(self, accounts: Sequence[AccountId]) -> Sequence[AccountId]:
        with self._database.begin() as connection:
            deleted = removal.delete(connection, accounts)
            self._audit.record(connection, Action.ERASED, deleted)
        return deleted

    def _publish(self, accounts: Sequence[AccountId]) -> bool:
        """Put the accounts as they are now into the cache. False while Redis is unavailable."""
        return self._cache.publish(self._accounts.entries(accounts))
