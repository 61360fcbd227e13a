"""The option by which an operator says why."""

from typing import Any

import click

from worker.domain.audit import parse_reason


def _parse(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
    return None if value is None else parse_reason(value)


with_reason = click.option(
    "--reason", metavar="TEXT", callback=_parse, help="Why; recorded, and shown by the command audit."
)
