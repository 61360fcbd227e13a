"""The text of a file in any usual encoding, by lines of bounded length."""

import codecs
import io
import re
from collections.abc import Iterator

from worker.domain.errors import InvalidInput
from worker.service.moving.record import RECORD_LIMIT

BYTE_ORDER_MARK = "\ufeff"  # at the start of a file, or in the middle of files that were joined

# The longer ones first, because one begins with another.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, zip, bzip2, xz, zstd
_LONGEST_MARK = 6  # bytes
_UNDECODABLE = re.compile(r"[\ud800-\udfff]")  # also half a character that the file itself has
_HANDLER = "worker.undecodable"


def _mark_undecodable(error: UnicodeError) -> tuple[str, int]:
    """As "surrogateescape", for the encodings that do not have it."""
    assert isinstance(error, UnicodeDecodeError)
    return "\udc80", error.end


codecs.register_error(_HANDLER, _mark_undecodable)


def open_text(file: io.BufferedReader) -> io.TextIOWrapper:
    """The file as text. A byte that cannot be decoded becomes a surrogate. Raises InvalidInput if it is compressed."""
    start = file.peek(_LONGEST_MARK)[:_LONGEST_MARK]
    if start.startswith(_COMPRESSED):
        raise InvalidInput("the file is compressed, or a workbook; unpack it, or save it as CSV in UTF-8")
    encoding = _encoding(start)
    errors = "surrogateescape" if encoding.startswith("utf-8") else _HANDLER
    return io.TextIOWrapper(file, encoding=encoding, errors=errors)


def is_undecodable(text: str) -> bool:
    return not text.isascii() and _UNDECODABLE.search(text) is not None


def bounded_lines(text: io.TextIOWrapper) -> Iterator[str]:
    """The lines, each with its end. A line beyond RECORD_LIMIT is cut one character after it."""
    while line := text.readline(RECORD_LIMIT + 1):
        yield line.removeprefix(BYTE_ORDER_MARK)
        if len(line) > RECORD_LIMIT:
            while line and not line.endswith("\n"):
                line = text.readline(RECORD_LIMIT)


def _encoding(start: bytes) -> str:
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    # Every format begins with an ASCII character, of which UTF-16 makes a byte and a zero.
    if start[:1] == b"\0":
        return "utf-16-be"
    return "utf-16-le" if start[1:2] == b"\0" else "utf-8"
