"""Errors of commands: a sentence for people on standard error, or JSON on standard output if that was asked for."""

import sys

import click

from worker.cli.output import print_json, printable
from worker.domain.codes import hint
from worker.domain.errors import AccountError, WorkerError


def as_json() -> bool:
    """Whether this command was asked for JSON; arguments that cannot be parsed were, too."""
    return "--json" in sys.argv[1:]


def print_error(error: WorkerError) -> None:
    """Print the error, and for an operator the meaning of Microsoft's code in it."""
    account = error if isinstance(error, AccountError) else None
    meaning = hint(account.reason) if account and account.reason else None
    if not as_json():
        click.echo(f"Error: {printable(f'{error}. {meaning}' if meaning else str(error))}", err=True)
        return
    about_account = (
        {
            "email": account.email,
            "reason": account.reason or None,
            "hint": meaning,
            "advice": account.advice,
        }
        if account
        else {}
    )
    print_json({"error": {"code": error.code, "message": str(error), **about_account}})


def print_usage_error(message: str) -> None:
    """As JSON, for arguments that cannot be used."""
    print_json({"error": {"code": "usage", "message": message}})
