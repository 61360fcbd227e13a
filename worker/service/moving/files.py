"""Reads accounts from a file: JSON lines, JSON arrays or CSV. A record that is bad does not end the reading."""

import csv
import json
import re
from collections.abc import Iterator
from io import BufferedReader, TextIOWrapper
from itertools import chain

from worker.service.moving.fields import field_name
from worker.service.moving.record import RECORD_LIMIT, Record
from worker.service.moving.text import BYTE_ORDER_MARK, bounded_lines, is_undecodable, open_text

_NOT_UTF_8 = "not UTF-8; save the file in this encoding"
_TOO_LONG = f"longer than {RECORD_LIMIT:,} characters"
_NOT_AN_OBJECT = "not a JSON object"
_NO_COLUMNS = f"{_NOT_AN_OBJECT}, nor the header of a CSV file with a column email"
_AN_ARRAY = "a JSON array; write one object a line, without brackets around and commas between them"

_DELIMITERS = ",;\t|"
_CHUNK = 4 * RECORD_LIMIT  # characters

_DECODER = json.JSONDecoder()
_BETWEEN = re.compile(rf"[\s,\[\]{BYTE_ORDER_MARK}]*+")
_NEXT_OBJECT = re.compile(r"\}\s*+,?\s*+(?=\{)")


def read_file(file: BufferedReader) -> Iterator[Record]:
    """The accounts of a file. Raises InvalidInput for a file that is compressed."""
    text = open_text(file)
    try:
        yield from _read(text)
    finally:
        text.detach()  # otherwise it would close the file of the caller


def _read(text: TextIOWrapper) -> Iterator[Record]:
    lines = bounded_lines(text)
    skipped, first = 0, ""
    for first in lines:
        if first.strip():
            break
        skipped += 1
    start = first.strip()
    if start.startswith("[") or start == "{":
        yield from _stream(first, text, skipped + 1)
    elif delimiter := _delimiter(first):
        yield from _csv(chain([first], lines), delimiter, skipped)
    else:
        yield from _json_lines(chain([first], lines), skipped + 1)


def _json_lines(lines: Iterator[str], first: int) -> Iterator[Record]:
    for number, line in enumerate(lines, first):
        if line.strip():
            yield _json_line(number, line, first)


def _json_line(number: int, line: str, first: int) -> Record:
    if len(line) > RECORD_LIMIT:
        return Record(number, text=line, reason=_TOO_LONG)
    if is_undecodable(line):
        return Record(number, text=line, reason=_NOT_UTF_8)
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return Record(number, value, line)
    if line.lstrip().startswith("["):
        return Record(number, text=line, reason=_AN_ARRAY)
    return Record(number, text=line, reason=_NO_COLUMNS if number == first else _NOT_AN_OBJECT)


def _stream(start: str, text: TextIOWrapper, number: int) -> Iterator[Record]:
    """The objects of an array, or of arrays and objects that follow each other."""
    buffer, position, is_complete = start, 0, False
    while True:
        while not is_complete and len(buffer) - position <= RECORD_LIMIT:
            more = text.read(_CHUNK)
            buffer, position, is_complete = buffer[position:] + more, 0, not more
        between = _BETWEEN.match(buffer, position)
        assert between
        number += buffer.count("\n", position, between.end())
        position = between.end()
        if position == len(buffer) and is_complete:
            return
        if not is_complete and len(buffer) - position <= RECORD_LIMIT:
            continue
        record, end = _object(buffer, position, number)
        yield record
        number += buffer.count("\n", position, end)
        position = end


def _object(buffer: str, position: int, number: int) -> tuple[Record, int]:
    """The object at the position, and where it ends. A bad one ends where another seems to begin."""
    try:
        value, end = _DECODER.raw_decode(buffer, position)
    except (ValueError, RecursionError):
        following = _NEXT_OBJECT.search(buffer, position)
        end = following.end() if following else len(buffer)
        return Record(number, text=buffer[position:end], reason=f"{_NOT_AN_OBJECT}, or {_TOO_LONG}"), end
    text = buffer[position:end]
    if len(text) > RECORD_LIMIT:
        return Record(number, text=text, reason=_TOO_LONG), end
    if is_undecodable(text):
        return Record(number, text=text, reason=_NOT_UTF_8), end
    if not isinstance(value, dict):
        return Record(number, text=text, reason=_NOT_AN_OBJECT), end
    return Record(number, value, text), end


def _delimiter(line: str) -> str | None:
    """The delimiter of a CSV file by its first line, or None if that does not name a column email."""
    if len(line) > RECORD_LIMIT or line.lstrip().startswith(("{", "[")):
        return None
    for delimiter in _DELIMITERS:
        if "email" in _columns(line, delimiter):
            return delimiter
    return None


def _columns(line: str, delimiter: str) -> list[str]:
    try:
        return [field_name(name) for name in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


def _csv(lines: Iterator[str], delimiter: str, skipped: int) -> Iterator[Record]:
    header = next(lines)
    columns = _columns(header, delimiter)
    yield Record(skipped + 1, text=header, is_header=True)
    taken: list[str] = []

    def noted() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    rows, number = csv.reader(noted(), delimiter=delimiter), skipped + 2
    while True:
        try:
            row, reason = next(rows), ""
        except StopIteration:
            return
        except csv.Error as error:
            row, reason = [], f"not a row of CSV: {error}"
        text = "".join(taken)
        if reason or row:
            yield _csv_record(number, columns, row, text, reason)
        number += len(taken)
        taken.clear()


def _csv_record(number: int, columns: list[str], row: list[str], text: str, reason: str) -> Record:
    if not reason and is_undecodable(text):
        reason = _NOT_UTF_8
    if not reason and len(row) != len(columns):
        reason = f"{len(row)} values for {len(columns)} columns"
    if reason:
        return Record(number, text=text, reason=reason)
    return Record(number, {name: value for name, value in zip(columns, row, strict=True) if value}, text)
