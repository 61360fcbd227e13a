"""The command ``token-worker``: one command per verb. Parses, calls one service, prints.

Exit codes: 0 ok, 1 failed, 2 usage, 3 the account needs its user, 4 the configuration is wrong.
"""

from typing import Any

import click

from worker import __version__
from worker.cli import (
    accounts,
    audit,
    breakers,
    development,
    doctor,
    emulator,
    errors,
    exporter,
    moving,
    operations,
    states,
    status,
    why,
)
from worker.cli.output import printable, without_tokens
from worker.domain.errors import ConfigurationError, InvalidInput, NeedsUser, WorkerError
from worker.observability import logging

FAILED, USAGE, USER_NEEDED, CONFIGURATION_WRONG = 1, 2, 3, 4

_EXIT_CODES: tuple[tuple[type[WorkerError], int], ...] = (
    (ConfigurationError, CONFIGURATION_WRONG),
    (NeedsUser, USER_NEEDED),
    (InvalidInput, USAGE),
    (WorkerError, FAILED),
)


class _Commands(click.Group):
    """Turns what this package raises on purpose into one sentence and an exit code; anything else is a bug."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            # It repeats a misplaced argument.
            message = printable(without_tokens(error.format_message()))
            if not errors.as_json():
                raise click.UsageError(message, ctx=error.ctx) from None
            errors.print_usage_error(message)
            ctx.exit(USAGE)
        except WorkerError as error:
            errors.print_error(error)
            ctx.exit(next(code for kind, code in _EXIT_CODES if isinstance(error, kind)))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "--version", prog_name="token-worker")
@click.option("-v", "--verbose", is_flag=True, help="Also log what happens, to standard error.")
def cli(*, verbose: bool) -> None:
    """Keep Microsoft OAuth 2.0 tokens of mailboxes fresh.

    Configured by WORKER_* variables; see the README's table. To see it work without any: token-worker demo
    """
    # An error ends in one sentence of the command itself; the log would say it twice.
    logging.configure(level="INFO" if verbose else "CRITICAL")


for module in (
    development,
    emulator,
    operations,
    doctor,
    exporter,
    breakers,
    audit,
    accounts,
    moving,
    states,
    status,
    why,
):
    for command in module.COMMANDS:
        cli.add_command(command)


def main() -> None:
    """The console script."""
    cli.main(prog_name="token-worker")
