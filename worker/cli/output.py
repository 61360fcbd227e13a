"""Output of commands: tables and fields for people, JSON for machines. No text reaches the terminal as a command."""

import json
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from shutil import get_terminal_size
from typing import Any

import click

from worker.domain.duration import duration

as_json = click.option("--json", "json_output", is_flag=True, help="Print JSON, for machines.")

_GAP = "  "
_TOKENLIKE = re.compile(r"[^\s']{64,}")  # characters; longer than most addresses and paths, shorter than any token


def print_json(value: object) -> None:
    click.echo(json.dumps(value, default=_plain))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """A table on a terminal; elsewhere plain lines that can be cut and grepped.

    If a row is wider than the terminal, the last cells of each row stand on a line of their own, whole.
    """
    cells = ([printable(str(cell)) for cell in row] for row in rows)
    if not sys.stdout.isatty():
        for row in cells:
            click.echo("\t".join(row))
        return
    if title:
        click.echo(title)
    header, *lines = _lines([list(columns), *cells])
    click.secho(header, bold=True)
    for line in lines:
        click.echo(line)


def print_trouble(text: str) -> None:
    """A sentence that needs the operator, in red on a terminal."""
    print_line(text, label="! ", color="red")


def print_fields(fields: dict[str, Any]) -> None:
    width = max(map(len, fields))
    for name, value in fields.items():
        print_line("-" if value is None else str(value), label=name.ljust(width) + _GAP)


def print_line(text: str, *, label: str = "", color: str | None = None) -> None:
    """The label and the text; on a terminal the text is wrapped between words, and indented as far as the label."""
    line = printable(text)
    if sys.stdout.isatty():
        indent = " " * max(len(label), len(_GAP))
        width = get_terminal_size().columns
        wrapped = textwrap.wrap(
            line, width, initial_indent=label, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
        click.secho("\n".join(wrapped), fg=color)
    else:
        click.echo(label + line)


def printable(text: str) -> str:
    """The text with an escape sequence, such as ``\\x1b``, for each character that does not print as itself."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def without_tokens(text: str) -> str:
    """The text with an ellipsis for each word that is as long as a token."""
    return _TOKENLIKE.sub("…", text)


def remaining(until: datetime | None, now: datetime) -> str:
    """``42 min``, ``expired 3 h ago``, or ``-``."""
    if until is None:
        return "-"
    left = until - now
    return duration(left) if left > timedelta(0) else f"expired {duration(-left)} ago"


def _lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Each row, padded to the widths of its columns; the columns that do not fit are on a second line."""
    from rich.cells import cell_len  # noqa: PLC0415 - only a terminal needs it

    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    fitting = _fitting(widths)
    for row in rows:
        padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        first = _GAP.join(padded[:fitting]).rstrip()
        yield f"{first}\n{_GAP}{_GAP.join(filter(None, row[fitting:]))}".rstrip()


def _fitting(widths: Sequence[int]) -> int:
    """How many columns fit into a line of the terminal; at least one."""
    ends = accumulate(len(_GAP) + width for width in widths)
    return max(1, sum(end - len(_GAP) <= get_terminal_size().columns for end in ends))


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    msg = f"cannot print {type(value).__name__} as JSON"
    raise TypeError(msg)
