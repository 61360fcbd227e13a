"""Looks accounts up for operators and the application: one by its address, or those of a selection."""

from collections.abc import Iterator
from datetime import timedelta

from worker.db import accounts as rows
from worker.db.selection import Order, select
from worker.db.session import Database
from worker.domain.account import Account, AccountId, account_id, normalize_email
from worker.domain.errors import UnknownAccount
from worker.domain.selection import EVERYTHING, Selection

_PAGE = 1000  # accounts
_OF_ALL_ROWS = timedelta(minutes=5)


class AccountList:
    """Needs the right to SELECT, and no key. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, email: str) -> Account:
        """Raises UnknownAccount, or InvalidInput if this is no e-mail address."""
        with self._database.begin() as connection:
            account = rows.find(connection, account_id(email))
        if account is None:
            raise UnknownAccount(normalize_email(email))
        return account

    def select(self, selection: Selection, *, order: Order = "email", limit: int | None = None) -> list[AccountId]:
        """The selected accounts in this order, the first ``limit`` of them: a look at every row."""
        with self._database.begin_long(_OF_ALL_ROWS) as connection:
            return select(connection, selection, order=order, limit=limit)

    def list(
        self, selection: Selection = EVERYTHING, *, order: Order = "email", limit: int | None = None
    ) -> Iterator[Account]:
        """The selected accounts as they are when they are reached, read in pages."""
        selected = self.select(selection, order=order, limit=limit)
        for start in range(0, len(selected), _PAGE):
            page = selected[start : start + _PAGE]
            with self._database.begin() as connection:
                found = rows.find_many(connection, page)
            yield from (found[account] for account in page if account in found)
