"""The command ``token-worker``: one command per verb. Parses, calls one service, prints.

Exit codes: 0 ok, 1 failed, 2 usage, 3 the account needs its user, 4 the configuration is wrong.
"""

import os

import click

from worker import __version__
from worker.cli.commands import Commands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "--version", prog_name="token-worker")
@click.option("-v", "--verbose", is_flag=True, help="Also log what happens, to standard error.")
@click.pass_context
def cli(ctx: click.Context, *, verbose: bool) -> None:
    """Keep Microsoft OAuth 2.0 tokens of mailboxes fresh.

    Configured by WORKER_* variables; see the README's table. To see it work without any: token-worker demo

    \b
    Exit codes: 0 ok, 1 failed, 2 usage, 3 the account needs its user,
    4 the configuration is wrong.
    """
    ctx.obj = "INFO" if verbose else "CRITICAL"  # an error ends in one sentence; the log would say it twice
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main() -> None:
    """The console script."""
    cli.main(prog_name="token-worker")
