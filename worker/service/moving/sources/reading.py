"""Reads the accounts of another product, from its database or a file."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from itertools import chain, islice
from typing import Any

from worker.db.foreign import open_foreign
from worker.domain.errors import InvalidInput
from worker.service.moving.files import read_file
from worker.service.moving.record import Record
from worker.service.moving.sources import allauth, msal_cache, mutt, nango, nextauth, prisma
from worker.service.moving.sources.source import Encrypted, Row, Source
from worker.service.moving.text import open_text

SOURCES: dict[str, Source] = {
    "prisma": prisma.SOURCE,
    "nextauth": nextauth.SOURCE,
    "allauth": allauth.SOURCE,
    "msal-cache": msal_cache.SOURCE,
    "nango": nango.SOURCE,
    "mutt": mutt.SOURCE,
}

_DOCUMENT_LIMIT = 256 << 20  # characters
_PROBE = 100  # records; if all of them are encrypted, so is the rest
_PGP = "-----BEGIN PGP"


@dataclass(frozen=True, slots=True)
class SourceRecords:
    """``total`` rows, if it is known."""

    records: Iterator[Record]
    total: int | None


@contextmanager
def open_database(name: str, url: str, *, table: str | None, clients: Mapping[str, str]) -> Iterator[SourceRecords]:
    """The accounts in the product's Postgres, of one snapshot. ``clients`` has the name of each client id.

    Raises InvalidInput if this product is not read from a database, or has encrypted its tokens.
    """
    source = SOURCES[name]
    if source.query is None:
        msg = f"{name} has no database; name a file"
        raise InvalidInput(msg)
    with open_foreign(url) as database:
        query = source.query(database, table)
        rows = ((number, row) for number, row in enumerate(database.rows(query.table, query.joins), 1))
        yield SourceRecords(_probed(_records(source, rows, clients)), database.count(query.table))


def read_source_file(name: str, file: BufferedReader, *, clients: Mapping[str, str]) -> Iterator[Record]:
    """The accounts in a file. Raises as ``open_database`` does."""
    source = SOURCES[name]
    if source.whole_file is not None:
        rows = enumerate((row for document in _documents(file) for row in source.whole_file(document)), 1)
        return _probed(_records(source, rows, clients))
    if file.peek(len(_PGP)).startswith((_PGP.encode(), b"\x84", b"\x85", b"\x8c")):
        raise InvalidInput("the file is encrypted by GnuPG: gpg --decrypt FILE | token-worker import --from mutt -")
    return _probed(_of_file(source, read_file(file), clients))


def _documents(file: BufferedReader) -> list[Any]:
    """The JSON document of the file, or those of its lines."""
    text = open_text(file)
    try:
        content = text.read(_DOCUMENT_LIMIT)
    finally:
        text.detach()
    try:
        return [json.loads(content)]
    except (ValueError, RecursionError):
        pass
    try:
        return [json.loads(line) for line in content.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        raise InvalidInput("the file is not JSON; it may be encrypted") from None


def _of_file(source: Source, records: Iterable[Record], clients: Mapping[str, str]) -> Iterator[Record]:
    for record in records:
        if record.is_header or record.reason:
            yield record
        else:
            yield from _records(source, [(record.number, record.fields)], clients, record.text)


def _records(
    source: Source, rows: Iterable[tuple[int, Row]], clients: Mapping[str, str], text: str = ""
) -> Iterator[Record]:
    for number, row in rows:
        try:
            for fields in source.accounts(row):
                yield Record(number, _with_client(fields, clients), text)
        except InvalidInput as error:
            yield Record(number, text=text, reason=str(error))


def _with_client(fields: dict[str, object], clients: Mapping[str, str]) -> dict[str, object]:
    """The fields that have a value, with the app registration's name in the place of its id."""
    given = {name: value for name, value in fields.items() if value not in (None, "")}
    client_id = given.pop("client_id", None)
    if client_id is None:
        return given
    if client_id not in clients:
        raise InvalidInput(
            "its client id is that of no app registration in the settings: see WORKER_CLIENTS__NAME__CLIENT_ID"
        )
    return {**given, "client": clients[str(client_id)]}


def _probed(records: Iterator[Record]) -> Iterator[Record]:
    """The records. Raises Encrypted at once if the first of them all are."""
    first = list(islice(records, _PROBE))
    encrypted = str(Encrypted())
    if first and all(each.reason == encrypted for each in first if not each.is_header):
        raise Encrypted
    return chain(first, records)
