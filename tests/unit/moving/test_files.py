"""Files as other programs write them: formats, encodings, and damage that ends in one refusal each."""

import codecs
import io
import json
import time
from collections.abc import Callable

import pytest

from worker.domain.errors import InvalidInput
from worker.service.moving.files import read_file
from worker.service.moving.record import RECORD_LIMIT, Record

ANN = {"email": "ann@contoso.com", "refresh_token": "1.A"}
BOB = {"email": "b\u00f6b@contoso.com", "refresh_token": "1.B"}
LINES = "\n".join(map(json.dumps, (ANN, BOB)))
CSV = "email,refresh_token\nann@contoso.com,1.A\nb\u00f6b@contoso.com,1.B\n"
FORMATS = {
    "lines": LINES,
    "lines with CR": LINES.replace("\n", "\r\n") + "\r\n",
    "array": json.dumps([ANN, BOB]),
    "pretty array": json.dumps([ANN, BOB], indent=2),
    "array of lines": "[\n" + ",\n".join(map(json.dumps, (ANN, BOB))) + "\n]\n",
    "pretty objects": "\n".join(json.dumps(each, indent=2) for each in (ANN, BOB)),
    "two arrays": f"\n\n[{json.dumps(ANN)}]\n[{json.dumps(BOB)}]",
    "CSV": CSV,
    "CSV with semicolons": CSV.replace(",", ";"),
    "CSV with tabs": CSV.replace(",", "\t"),
    "CSV in camel case": CSV.replace("refresh_token", " refreshToken "),
    "quoted CSV": "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in CSV.split()),
}
ENCODINGS = {
    "UTF-8": lambda text: text.encode(),
    "UTF-8 with BOM": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 BE with BOM": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "UTF-16 without BOM": lambda text: text.encode("utf-16-le"),
    "UTF-16 BE without BOM": lambda text: text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
}


def read(content: bytes | str) -> list[Record]:
    encoded = content if isinstance(content, bytes) else content.encode()
    return [each for each in read_file(io.BufferedReader(io.BytesIO(encoded))) if not each.is_header]


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("text", FORMATS.values(), ids=FORMATS)
def test_formats_and_encodings_are_recognized(text: str, encode: Callable[[str], bytes]) -> None:
    """An operator does not convert a file before the import."""
    if text.startswith("\n") and "without BOM" in repr(encode):
        pytest.skip("a file without BOM is recognized by its first character")
    found = read(encode(text))
    assert [each.reason for each in found] == ["", ""]
    assert [{name.replace("T", "_t"): value for name, value in each.fields.items()} for each in found] == [ANN, BOB]


_BAD_OBJECTS = {
    "half a string": '{"email": "ann@contoso',
    "no comma": '{"email": "a@b.c" "refresh_token": "x"}',
    "a word": "nonsense",
    "a list": '["x"]',
    "deep nesting": '{"email": ' + "[" * 50_000 + "]" * 50_000 + "}",
    "deep objects": '{"a":' * 50_000,
    "too long": '{"email": "' + "x" * (RECORD_LIMIT + 10) + '"}',
    "a number of many digits": '{"email": ' + "9" * 10_000 + "}",
    "a bare NUL": "\0",
}


@pytest.mark.parametrize("bad", _BAD_OBJECTS.values(), ids=_BAD_OBJECTS)
def test_a_bad_line_is_one_refusal(bad: str) -> None:
    """The lines around it are read."""
    found = read(f"{json.dumps(ANN)}\n{bad}\n{json.dumps(BOB)}\n")
    assert [(each.number, bool(each.reason)) for each in found] == [(1, False), (2, True), (3, False)]


@pytest.mark.parametrize("name", [name for name in _BAD_OBJECTS if name not in {"a list", "a word", "a bare NUL"}])
def test_a_bad_object_of_an_array_is_one_refusal(name: str) -> None:
    """The next object is found by its brace."""
    bad = _BAD_OBJECTS[name]
    bad = bad if bad.endswith("}") else bad + "}"
    found = read(f"[\n{json.dumps(ANN)},\n{bad},\n{json.dumps(BOB)}\n]")
    assert [(each.number, bool(each.reason)) for each in found] == [(2, False), (3, True), (4, False)]


def test_latin_1_bytes_are_named_by_their_line() -> None:
    """A spreadsheet program of Windows saves like this."""
    for text in (LINES, CSV, FORMATS["array of lines"]):
        found = read(text.replace("\\u00f6", "\u00f6").encode("latin-1"))
        assert [each.reason for each in found] == ["", "not UTF-8; save the file in this encoding"]


def test_bad_rows_of_csv_are_named_by_their_line() -> None:
    """A row that is too short or too long, or a quote without end, does not end the import."""
    found = read('email,refresh_token\na@b.c\na@b.c,1,2\n\n"a@b.c","1\nx"\nb@c.d,2\n')
    assert [(each.number, each.reason) for each in found] == [
        (2, "1 values for 2 columns"),
        (3, "3 values for 2 columns"),
        (5, ""),
        (7, ""),
    ]
    endless = read("email,refresh_token\na@b.c,1\n" + 'b@c.d,"' + "x\n" * 200_000)
    assert endless[0].reason == ""
    assert endless[1].reason.startswith("not a row of CSV")


def test_a_file_without_json_or_columns_says_what_is_needed() -> None:
    """The hint is on the first line; the others are bad by themselves."""
    first, second = read("name;mail\nAnn;ann@contoso.com\n")
    assert first.reason == "not a JSON object, nor the header of a CSV file with a column email"
    assert second.reason == "not a JSON object"


@pytest.mark.parametrize("start", [b"\x1f\x8b\x08", b"PK\x03\x04", b"BZh9"])
def test_a_compressed_file_is_refused(start: bytes) -> None:
    """Its bytes would be a million bad lines."""
    with pytest.raises(InvalidInput, match="compressed"):
        read(start + b"\0" * 100)


@pytest.mark.parametrize(
    "content",
    [
        b"{" * 3_000_000,
        b"[" * 3_000_000,
        b"}" * 3_000_000,
        b"[{},}" + b" " * 6_000_000,
        b"[" + b"{}," * 1_000_000,
        b'[{"a": "' + b'\\"' * 3_000_000,
        b"email,refresh_token\n" + b"," * 3_000_000,
        b"email" + b"," * 3_000_000,
        b"\xff" * 3_000_000,
    ],
    ids=["braces", "brackets", "closing braces", "blanks", "empty objects", "quotes", "commas", "columns", "bytes"],
)
def test_megabytes_of_nonsense_take_seconds(content: bytes) -> None:
    """No step looks at the same megabyte again and again, and no record is kept whole."""
    start = time.monotonic()
    assert all(len(each.text) <= 5 * RECORD_LIMIT for each in read_file(io.BufferedReader(io.BytesIO(content))))
    assert time.monotonic() - start < 60


def test_an_empty_file_has_no_account() -> None:
    assert [read(content) for content in (b"", b"\n\n", codecs.BOM_UTF8, b"[]", b"email,refresh_token\n")] == [[]] * 5
