"""Stores accounts that another product or a file has, many at a time; a bad one is refused and the others stored."""

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from worker.domain.account import Account, AccountId, NewAccount, account_id
from worker.domain.audit import Action
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
            parsed = [(record, self._parsed(record)) for record in group]
            if existing is Existing.ONLY_NEWER:
                parsed = list(self._dated(parsed))
            accounts = list(_accepted(parsed, reject, report))
            if accounts:
                changed = self._preview(accounts, existing) if dry_run else self._store(accounts, existing)
                _count(report, accounts, changed, done)
            progress(len(group))
        return report

    def _parsed(self, record: Record) -> NewAccount | str:
        """The account, or why it is refused."""
        if record.is_header or record.reason:
            return record.reason
        try:
            return self._accounts.checked(parse_account(record.fields))
        except InvalidInput as error:
            return str(error)

    def _dated(self, parsed: Sequence[tuple[Record, NewAccount | str]]) -> Iterator[tuple[Record, NewAccount | str]]:
        """Refuses grants of unknown age for accounts that are stored."""
        undated = [each for _, each in parsed if isinstance(each, NewAccount) and _is_undated(each)]
        stored = self._accounts.stored(undated) if undated else {}
        for record, each in parsed:
            if isinstance(each, NewAccount) and _is_undated(each) and account_id(each.email) in stored:
                yield record, "obtained_at or expires_at is needed, to know whether it is newer"
            else:
                yield record, each

    def _store(self, grants: Sequence[NewAccount], existing: Existing) -> dict[AccountId, bool]:
        """The accounts that were stored, and whether they are new."""
        saved = self._accounts.store(grants, action=Action.IMPORTED, unless=_KEEPS[existing])
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


def _accepted(
    parsed: Iterable[tuple[Record, NewAccount | str]], reject: Reject, report: ImportReport
) -> Iterator[NewAccount]:
    for record, each in parsed:
        if isinstance(each, NewAccount):
            report.expiry_missing += each.access_token is not None and each.expires_at is None
            yield each
        else:
            report.refused += not record.is_header
            reject(record, each)


def _is_undated(account: NewAccount) -> bool:
    return account.refresh_token is not None and account.obtained_at is None and account.expires_at is None


def _is_as_new(grant: NewAccount, stored: Account) -> bool:
    """Whether the stored grant is as new as this one, or newer. An account with a password brings nothing new."""
    if grant.refresh_token is None:
        return True
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
