"""Accounts as Postgres has them, and as the cache should have them."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from worker.db import accounts as rows
from worker.db import events
from worker.db.session import Database
from worker.domain.account import Account, AccountId
from worker.domain.binding import binding_of
from worker.domain.cache_entry import CacheEntry
from worker.domain.cached_failure import failure_of
from worker.domain.errors import UnknownAccount, UnreadableSecret
from worker.domain.token import AccessToken
from worker.vault import Purpose, Vault


class AccountReader:
    """Needs the right to SELECT, and the keys of access tokens. Thread-safe."""

    def __init__(self, *, database: Database, vault: Vault, utcnow: Callable[[], datetime]) -> None:
        self._database = database
        self._vault = vault
        self._utcnow = utcnow

    def find(self, account: AccountId, email: str) -> Account:
        """Raises UnknownAccount, or DatabaseUnavailable."""
        with self._database.begin() as connection:
            stored = rows.find(connection, account)
        if stored is None:
            raise UnknownAccount(email)
        return stored

    def find_many(self, accounts: Sequence[AccountId]) -> dict[AccountId, Account]:
        """Those that are stored, in one query. Raises DatabaseUnavailable."""
        with self._database.begin() as connection:
            return rows.find_many(connection, accounts)

    def versions(self, accounts: Sequence[AccountId]) -> dict[AccountId, int]:
        """The versions of those that are stored. Raises DatabaseUnavailable."""
        with self._database.begin() as connection:
            return rows.versions(connection, accounts)

    def entry(self, stored: Account) -> CacheEntry:
        """The entry that the cache should have. Raises UnreadableSecret, naming the account."""
        return CacheEntry.of(stored, token=self._token(stored), failure=failure_of(stored, now=self._utcnow()))

    def entries(self, accounts: Sequence[AccountId]) -> list[CacheEntry]:
        """The entries that the cache should have of accounts that were just refreshed or changed.

        A token that does not open here is left out: a process that has its key finds it in Postgres.
        """
        return [self._entry_after(stored) for stored in self.find_many(accounts).values()]

    def last_granted(self, account: AccountId, trigger: str, *, within: timedelta) -> datetime | None:
        """When a refresh for this reason last brought a token, if that was within the interval."""
        with self._database.begin() as connection:
            return events.last_granted(connection, account, trigger=trigger, since=self._utcnow() - within)

    def _entry_after(self, stored: Account) -> CacheEntry:
        token = None
        with suppress(UnreadableSecret):
            token = self._token(stored)
        return CacheEntry.of(stored, token=token, failure=failure_of(stored, now=self._utcnow(), requested=True))

    def _token(self, stored: Account) -> AccessToken | None:
        if stored.access_token is None or stored.expires_at is None or stored.obtained_at is None:
            return None
        try:
            secret = self._vault.open(stored.access_token, stored.id, Purpose.ACCESS_TOKEN, binding_of(stored))
        except UnreadableSecret as error:
            raise type(error)(f"{stored.email}: {error}") from None
        return AccessToken(
            email=stored.email,
            secret=secret,
            obtained_at=stored.obtained_at,
            expires_at=stored.expires_at,
            version=stored.version,
        )
