"""A mailbox whose address has changed: its account moves to the id of the new address, with everything it has."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from worker.db import accounts as rows
from worker.db import removal
from worker.db.session import Database
from worker.domain.account import Account, account_id, normalize_email
from worker.domain.audit import Action
from worker.domain.binding import binding_of
from worker.domain.errors import InvalidInput, Unavailable
from worker.domain.token import Sealed
from worker.service.accounts.audit import AuditLog
from worker.service.accounts.reader import AccountReader
from worker.service.refresh.outbox import Outbox
from worker.service.tokens.cache import TokenCache
from worker.service.tokens.on_demand import poll
from worker.vault import Purpose, Vault


class AccountRenaming:
    """Sealed values are bound to id and address, so they are sealed anew. Thread-safe."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        accounts: AccountReader,
        outbox: Outbox,
        cache: TokenCache,
        audit: AuditLog,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._vault = vault
        self._accounts = accounts
        self._outbox = outbox
        self._cache = cache
        self._audit = audit
        self._utcnow = utcnow

    def rename(self, old: str, new: str) -> None:
        """Move the account of ``old`` to the address ``new``. A refresh under way is awaited.

        Raises UnknownAccount, InvalidInput if ``new`` is an account already, UnreadableSecret if a token does not open,
        and Unavailable.
        """
        source, target, email = account_id(old), account_id(new), normalize_email(new)
        if source == target:
            raise InvalidInput("the addresses are the same")
        for _attempt in poll():
            account = self._accounts.find(source, normalize_email(old))
            if self._move(account, replace(account, id=target, email=email)):
                self._cache.delete([source])
                self._cache.publish(self._accounts.entries([target]))
                return
        msg = f"{normalize_email(old)}: another process refreshes this account; try again in a minute"
        raise Unavailable(msg)

    def _move(self, old: Account, new: Account) -> bool:
        if self._outbox.deliver_for([old.id]):  # the row has changed, or lacks a token
            return False
        moved = replace(
            new,
            access_token=self._sealed(old.access_token, old, new, Purpose.ACCESS_TOKEN),
            refresh_token=self._sealed(old.refresh_token, old, new, Purpose.REFRESH_TOKEN),
        )
        with self._database.begin() as connection:
            if rows.find(connection, new.id):
                msg = f"{new.email} is an account already; erase it first"
                raise InvalidInput(msg)
            is_moved = removal.move(connection, old, moved, now=self._utcnow())
            if is_moved:
                self._audit.record(connection, Action.RENAMED, [old.id, new.id])
        return is_moved

    def _sealed(self, value: Sealed | None, old: Account, new: Account, purpose: Purpose) -> Sealed | None:
        if value is None:
            return None
        token = self._vault.open(value, old.id, purpose, binding_of(old))
        return self._vault.seal(token, new.id, purpose, binding_of(new))
