"""Seals every stored token anew, under the newest key and for its account's terms, and proves that none is left."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from uuid import UUID

import stamina
import structlog

from worker.db import key_rotation
from worker.db.key_rotation import Page, SealedRow
from worker.db.session import Database
from worker.domain.audit import Action
from worker.domain.binding import binding_of
from worker.domain.errors import ConfigurationError, Unavailable, UnreadableSecret
from worker.domain.token import Sealed
from worker.service.accounts.audit import AuditLog
from worker.service.refresh.outbox import Outbox
from worker.vault import Purpose, Vault, key_prefix

log = structlog.get_logger(__name__)

_BEFORE_ALL = UUID(int=0)
_PAGE_SIZE = 100  # rows that are locked at a time
_patiently = stamina.RetryingCaller(attempts=5, timeout=30.0, wait_initial=0.2, wait_max=2.0).on(Unavailable)
_PURPOSES = tuple(Purpose(column) for column in key_rotation.SEALED_COLUMNS)


@dataclass(frozen=True, slots=True)
class KeyRotationReport:
    """``remaining`` rows still hold something under an older key, or not bound to the account's terms; ``unreadable``
    of them do not open.

    ``waiting`` entries of the outbox cannot be stored, and may be under an older key as well.
    """

    rotated: int
    unreadable: int
    remaining: int
    waiting: int = 0


class KeyRotation:
    """May be stopped and started again at any time: what is done is recognised by its first bytes."""

    def __init__(self, *, database: Database, vault: Vault, outbox: Outbox, audit: AuditLog) -> None:
        self._database = database
        self._vault = vault
        self._outbox = outbox
        self._audit = audit

    def rotate(self, *, progress: Callable[[int], None]) -> KeyRotationReport:
        """Go through all rows once. Calls ``progress`` with the number looked at. Raises Unavailable."""
        waiting = self._outbox.deliver_all()  # it may be sealed under the key that is to go
        rotated = unreadable = looked_at = 0
        for page in self._pages():
            # A refresh of the same rows may be in the way: Postgres then refuses one of the two, which tries again.
            done, left = _patiently(self._rotate_page, page)
            rotated += done
            unreadable += left
            looked_at += len(page)
            progress(looked_at)
        self._audit.write(Action.KEYS_ROTATED, detail=f"{rotated} accounts sealed anew, {unreadable} unreadable")
        remaining = sum(_patiently(self._remaining, page) for page in self._pages())
        return KeyRotationReport(rotated, unreadable, remaining, waiting)

    def check(self) -> None:
        """Open what some accounts hold, as a diagnosis. Raises ConfigurationError saying what does not open."""
        with self._database.begin() as connection:
            page = key_rotation.page(connection, after=_BEFORE_ALL, size=_PAGE_SIZE)  # at random: ids are hashes
            rows = key_rotation.find_readable(connection, page) if page else []
        for row in rows:
            try:
                for value, purpose in zip(row.values, _PURPOSES, strict=True):
                    if value is not None:
                        self._vault.open(value, row.account_id, purpose, binding_of(row))
            except UnreadableSecret as error:
                msg = f"what is stored for account {row.account_id} cannot be opened: {error}"
                raise ConfigurationError(msg) from None

    def _pages(self) -> Iterator[Page]:
        after = _BEFORE_ALL
        while page := _patiently(self._page, after):
            yield page
            after = page[-1]

    def _page(self, after: UUID) -> Page:
        with self._database.begin() as connection:
            return key_rotation.page(connection, after=after, size=_PAGE_SIZE)

    def _remaining(self, page: Page) -> int:
        with self._database.begin() as connection:
            return key_rotation.count_other_than(connection, key_prefix(self._vault.newest_key_id), page)

    def _rotate_page(self, page: Page) -> tuple[int, int]:
        """How many rows were re-sealed, and how many do not open."""
        with self._database.begin() as connection:
            rows = key_rotation.find_other_than(connection, key_prefix(self._vault.newest_key_id), page)
            old, new = self._reseal_all(rows)
            return key_rotation.swap(connection, old, new), len(rows) - len(old)

    def _reseal_all(self, page: list[SealedRow]) -> tuple[list[SealedRow], list[SealedRow]]:
        old, new = [], []
        for row in page:
            try:
                new.append(self._reseal(row))
                old.append(row)
            except UnreadableSecret as error:
                log.error(
                    "Secret cannot be opened and stays as it is", account_id=str(row.account_id), reason=str(error)
                )
        return old, new

    def _reseal(self, row: SealedRow) -> SealedRow:
        pairs = zip(row.values, _PURPOSES, strict=True)
        return replace(row, values=tuple(self._reseal_value(row, value, purpose) for value, purpose in pairs))

    def _reseal_value(self, row: SealedRow, value: Sealed | None, purpose: Purpose) -> Sealed | None:
        if value is None or not self._vault.needs_rotation(value):
            return value
        return self._vault.rotate(value, row.account_id, purpose, binding_of(row))
