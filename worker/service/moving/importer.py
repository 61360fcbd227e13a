"""Stores accounts that another product or a file has, many at a time; a bad one is refused and the others stored."""

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from worker.domain.account import Account, AccountId, NewAccount, account_id
from worker.domain.errors import InvalidInput
from worker.service.accounts.manager import AccountManager
from worker.service.moving.fields import parse_account
from worker.service.moving.record import Record

_GROUP = 500  # accounts per transaction: half a second's work

#: Gets each refused record and the reason, and the header of a CSV file without a reason.
Reject = Callable[[Record, str], None]


class Existing(enum.StrEnum):
    """The treatment of an account that is stored already."""

    REPLACE = "replace"  #: it gets the new grant
    SKIP = "skip"  #: it stays as it is
    ONLY_NEWER = "only newer"  #: it gets the new grant if that is newer than the stored one


@dataclass(slots=True, kw_only=True)
class ImportReport:
    """Numbers of accounts, and of records that were refused.

    ``repeated`` records are about an account that an earlier record of the same import has stored; the last one counts.
    ``expiry_missing``: accounts whose access token was left out, because it came without ``expires_at``.
    """

    new: int = 0
    replaced: int = 0
    left: int = 0
    repeated: int = 0
    refused: int = 0
    expiry_missing: int = 0


class Importer:
    """Imports by way of an AccountManager. Thread-safe."""

    def __init__(self, accounts: AccountManager) -> None:
        self._accounts = accounts

    def run(
        self,
        records: Iterable[Record],
        *,
        reject: Reject,
        progress: Callable[[int], None],
        existing: Existing = Existing.REPLACE,
        dry_run: bool = False,
    ) -> ImportReport:
        """Store each record's account. Calls ``progress`` with the number of records that are done since the last call.

        Raises Unavailable when Postgres fails; the accounts so far stay stored.
        """
        report, done = ImportReport(), set[AccountId]()
        for group in _groups(records):
            grants = list(self._checked(group, reject, report, existing))
            if grants:
                changed = self._preview(grants, existing) if dry_run else self._store(grants, existing)
                _count(report, grants, changed, done)
            progress(len(group))
        return report

    def _checked(
        self, group: Sequence[Record], reject: Reject, report: ImportReport, existing: Existing
    ) -> Iterator[NewAccount]:
        for record in group:
            if record.is_header:
                reject(record, "")
                continue
            try:
                grant = self._grant(record, existing)
            except InvalidInput as error:
                report.refused += 1
                reject(record, str(error))
                continue
            report.expiry_missing += grant.access_token is not None and grant.expires_at is None
            yield grant

    def _grant(self, record: Record, existing: Existing) -> NewAccount:
        if record.reason:
            raise InvalidInput(record.reason)
        grant = self._accounts.checked(parse_account(record.fields))
        if existing is Existing.ONLY_NEWER and grant.obtained_at is None and grant.expires_at is None:
            raise InvalidInput("obtained_at or expires_at is needed, to know whether it is newer")
        return grant

    def _store(self, grants: Sequence[NewAccount], existing: Existing) -> dict[AccountId, bool]:
        """The accounts that were stored, and whether they are new."""
        saved = self._accounts.store(grants, unless=_KEEPS[existing])
        return {account: version == 1 for account, version in saved.items()}

    def _preview(self, grants: Sequence[NewAccount], existing: Existing) -> dict[AccountId, bool]:
        """As ``_store``, without storing."""
        stored, keeps = self._accounts.stored(grants), _KEEPS[existing]
        changed = {}
        for grant in grants:
            account = account_id(grant.email)
            old = stored.get(account)
            if old is None or keeps is None or not keeps(grant, old):
                changed[account] = old is None
        return changed


def _is_as_new(grant: NewAccount, stored: Account) -> bool:
    """Whether the stored grant is as new as this one, or newer."""
    if grant.obtained_at is not None and stored.refresh_token_issued_at is not None:
        return grant.obtained_at <= stored.refresh_token_issued_at
    if grant.expires_at is not None and stored.expires_at is not None:
        return grant.expires_at <= stored.expires_at
    return False


_KEEPS: dict[Existing, Callable[[NewAccount, Account], bool] | None] = {
    Existing.REPLACE: None,
    Existing.SKIP: lambda _grant, _stored: True,
    Existing.ONLY_NEWER: _is_as_new,
}


def _count(
    report: ImportReport, given: Sequence[NewAccount], changed: dict[AccountId, bool], done: set[AccountId]
) -> None:
    accounts = {account_id(each.email) for each in given}
    again = accounts & done
    report.repeated += len(given) - len(accounts) + len(again)
    done |= accounts
    for account in accounts - again:
        if account not in changed:
            report.left += 1
        elif changed[account]:
            report.new += 1
        else:
            report.replaced += 1


def _groups(records: Iterable[Record]) -> Iterator[list[Record]]:
    iterator = iter(records)
    while group := list(islice(iterator, _GROUP)):
        yield group
