"""Imports as the command makes them, from lines."""

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from worker.service.accounts.manager import AccountManager
from worker.service.moving.files import read_file
from worker.service.moving.importer import Existing, Importer, ImportReport
from worker.service.moving.record import Record


class Refusal(NamedTuple):
    number: int
    reason: str


def import_bytes(
    accounts: AccountManager, content: bytes, *, existing: Existing = Existing.REPLACE, dry_run: bool = False
) -> tuple[ImportReport, list[Refusal]]:
    """Import a file with this content."""
    return import_records(
        accounts, read_file(io.BufferedReader(io.BytesIO(content))), existing=existing, dry_run=dry_run
    )


def import_records(
    accounts: AccountManager,
    records: Iterable[Record],
    *,
    existing: Existing = Existing.REPLACE,
    dry_run: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[ImportReport, list[Refusal]]:
    refused = list[Refusal]()

    def reject(record: Record, reason: str) -> None:
        refused.extend([Refusal(record.number, reason)] if reason else [])

    report = Importer(accounts).run(records, reject=reject, progress=progress, existing=existing, dry_run=dry_run)
    assert report.refused == len(refused)
    return report, refused


def import_lines(accounts: AccountManager, *lines: str) -> tuple[int, list[Refusal]]:
    """Import a file with these lines. Returns the number of records that were stored, and the refusals."""
    report, refused = import_bytes(accounts, "\n".join(lines).encode(errors="surrogateescape"))
    return report.new + report.replaced + report.repeated, refused


def records(lines: Iterable[str]) -> Iterator[Record]:
    """Lines that are read when the import needs them."""
    for number, line in enumerate(lines, 1):
        yield from (replace(each, number=number) for each in read_file(io.BufferedReader(io.BytesIO(line.encode()))))
