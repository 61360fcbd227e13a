"""What commands print: tables for people, JSON for machines."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import click
from rich.console import Console
from rich.table import Table

as_json = click.option("--json", "json_output", is_flag=True, help="Print JSON, for machines.")


def print_json(value: object) -> None:
    click.echo(json.dumps(value, default=_plain))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """A table as wide as the terminal; without one, plain lines that can be cut and grepped."""
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        for row in rows:
            click.echo("\t".join(str(cell) for cell in row))
        return
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console().print(table)


def print_fields(fields: dict[str, Any]) -> None:
    width = max(map(len, fields))
    for name, value in fields.items():
        click.echo(f"{name.ljust(width)}  {'-' if value is None else value}")


def remaining(until: datetime | None, now: datetime) -> str:
    """``42 min``, ``expired 3 h ago``, or ``-``."""
    if until is None:
        return "-"
    left = until - now
    return duration(left) if left > timedelta(0) else f"expired {duration(-left)} ago"


def duration(span: timedelta) -> str:
    """One unit is precise enough to act on."""
    seconds = span.total_seconds()
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    msg = f"cannot print {type(value).__name__} as JSON"
    raise TypeError(msg)
