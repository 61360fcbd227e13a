"""The command that shows who did what."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

import click

from worker.cli.output import as_json, print_json, print_table
from worker.cli.selection import Instant
from worker.cli.services import views
from worker.domain.account import account_id
from worker.domain.audit import Act


@click.command()
@click.option("--account", "email", metavar="EMAIL", help="Only acts on this account.")
@click.option("--since", type=Instant(), help="Only acts since: 2h, 3d, or an instant.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="The newest N.")
@as_json
def audit(email: str | None, since: datetime | None, limit: int, *, json_output: bool) -> None:
    """Show who saved, paused, resumed, erased or printed what, from where and why. Newest first.

    The record has no token. It is kept for WORKER_AUDIT_RETENTION_DAYS. With --json: one object a line.
    """
    account = account_id(email) if email else None
    with views() as opened:
        acts = opened.audit.acts(account=account, since=since, limit=limit)
    if json_output:
        for act in acts:
            print_json(asdict(act))
        return
    print_acts(acts)


COMMANDS: tuple[click.Command, ...] = (audit,)


def print_acts(acts: Sequence[Act], *, title: str | None = None) -> None:
    """A table of acts."""
    print_table(
        ("at", "who", "did", "to", "by", "why"),
        (
            (
                f"{act.at:%Y-%m-%d %H:%M:%S}",
                f"{act.user}@{act.host}",
                act.action.replace("_", " "),
                act.account or act.detail or f"{act.accounts:,} accounts",
                act.program,
                act.reason or "",
            )
            for act in acts
        ),
        title=title,
    )
