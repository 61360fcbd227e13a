"""Writes the manual page of ``token-worker`` from its commands, in roff with the macros of man(7).

One page for all commands; click-man writes one file for each.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import click

from worker import __version__
from worker.cli import cli
from worker.cli.commands import all_commands

_FILE = Path("build/token-worker.1")


def page() -> str:
    """The manual page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield f'.TH TOKEN-WORKER 1 "" "token-refresh-worker {__version__}" "User Commands"'
    yield from (".SH NAME", r"token-worker \- keep Microsoft OAuth 2.0 tokens of mailboxes fresh")
    yield from (".SH SYNOPSIS", ".B token-worker", r"[\-v] \fICOMMAND\fR [\fIARGS\fR]...")
    yield from (".SH DESCRIPTION", *_text(cli.help or ""))
    yield ".SH COMMANDS"
    for name, command in all_commands(cli):
        context = click.Context(command, info_name=name)
        pieces = " ".join(piece for piece in command.collect_usage_pieces(context))
        yield from (".SS", _quoted(f"{name} {pieces}"), *_text(command.help or ""))
        for parameter in command.params:
            record = parameter.get_help_record(context)
            if record and record[1]:
                yield from (".TP", rf"\fB{_quoted(record[0])}\fR", _quoted(record[1]))


def _text(text: str) -> Iterator[str]:
    """Paragraphs; those that click does not wrap keep their lines."""
    for paragraph in filter(None, text.strip(" \n").split("\n\n")):
        lines = [line.strip() for line in paragraph.splitlines()]
        is_fixed = lines[0] == "\b"
        yield from (".PP", *([".nf"] if is_fixed else []))
        yield from map(_quoted, lines[1:] if is_fixed else lines)
        if is_fixed:
            yield ".fi"


def _quoted(line: str) -> str:
    r"""Without meaning for roff: a hyphen that stays one, and no dot or quote at the beginning of a line."""
    quoted = line.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{quoted}" if quoted.startswith((".", "'")) else quoted


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=_FILE)
    file = parser.parse_args().file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page())
    click.echo(f"written: {file}; read it with: man -l {file}")
