"""Commands for operators."""

import sys
from dataclasses import asdict

import click

from worker import clock
from worker.cli.output import as_json, print_json
from worker.cli.reason import with_reason
from worker.cli.services import services
from worker.vault import format_access_keys, generate_key

# Modules that import SQLAlchemy, pydantic or Alembic are imported in functions: see worker.cli.services.


@click.command()
@as_json
def migrate(*, json_output: bool) -> None:
    """Create or update the tables in WORKER_DATABASE_URL."""
    from worker.db import schema  # noqa: PLC0415
    from worker.db.session import Database  # noqa: PLC0415
    from worker.settings import DatabaseSettings, load  # noqa: PLC0415

    database = Database(load(DatabaseSettings).database_url.get_secret_value())
    try:
        with database.begin() as connection:
            is_newer, pending = schema.is_newer(connection), schema.pending(connection)
        schema.upgrade(database.role)
    finally:
        database.close()
    if json_output:
        print_json({"applied": [] if is_newer else list(pending), "is_newer": is_newer})
    elif is_newer:
        click.echo("nothing to do: the tables are newer than this program, which works with them as well")
    else:
        click.echo(f"migrated: {', '.join(pending)}" if pending else "already up to date")


@click.command()
@click.option("--id", "name", help="The key's id; today's date unless given.")
@click.option("--access", is_flag=True, help="Print WORKER_ACCESS_KEYS, made from WORKER_ENCRYPTION_KEYS, instead.")
@as_json
def keygen(name: str | None, *, access: bool, json_output: bool) -> None:
    """Print a new encryption key.

    The first goes into WORKER_ENCRYPTION_KEYS. Another goes to its end, until every process knows it: see rotate-keys.

    With --access: what of those keys a consumer needs that reads access tokens. It opens no refresh token, and must be
    made anew whenever a key is added.
    """
    if access:
        if name:
            raise click.UsageError("--id names a new key, and --access makes none")
        from worker.settings import KeySettings, load  # noqa: PLC0415

        setting, value = "WORKER_ACCESS_KEYS", format_access_keys(load(KeySettings).keys)
    else:
        setting, value = "WORKER_ENCRYPTION_KEYS", generate_key(name or f"k{clock.utcnow():%Y%m%d}")
    if json_output:
        print_json({setting: value})
    else:
        click.echo(value)


@click.command("rotate-keys")
@with_reason
@as_json
def rotate_keys(*, reason: str | None, json_output: bool) -> None:
    """Re-seal everything under the newest key, while all is running; may be stopped and run again.

    Before it: add the new key at the end of WORKER_ENCRYPTION_KEYS everywhere and restart, so that all can open what
    it seals; then move it to the front everywhere and restart. After it: remove the old key once this has said that
    nothing is left and WORKER_CACHE_TTL has passed, and keep it for as long as there are backups from before.
    """

    def progress(done: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{done} accounts", nl=False, err=True)

    with services(reason=reason) as opened:
        report = opened.key_rotation.rotate(progress=progress)
    if sys.stderr.isatty():
        click.echo("\r", nl=False, err=True)
    if json_output:
        print_json(asdict(report))
    else:
        click.echo(
            f"{report.rotated} re-sealed, {report.unreadable} unreadable, {report.remaining} left under older keys"
        )
    if report.waiting and not json_output:
        click.echo(f"{report.waiting} still wait in the outbox: run this again, or see the log", err=True)
    if report.remaining or report.waiting:
        raise SystemExit(1)


COMMANDS: tuple[click.Command, ...] = (migrate, keygen, rotate_keys)
