"""Commands for a first look, and for development."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from worker.devkit.stack import StackError

# The rest of the devkit brings a web server, Celery, SQLAlchemy and more, two seconds' worth, which no other command
# should wait for: it is imported where it is used, and there Ctrl-C must end it like anything else.

_INTERRUPTED = 130
_DEMO_SECONDS = 100


@click.command()
@click.option("--seconds", type=click.IntRange(min=10), default=_DEMO_SECONDS, show_default=True, help="How long.")
def demo(seconds: int) -> None:
    """Show it all at work: about two minutes, real servers, no configuration; ends with a verdict."""
    with devkit_imports():
        from worker.devkit import demo as show  # noqa: PLC0415

    end_in_good_order()
    try:
        good = show.demo(seconds=seconds)
    except StackError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    if not good:
        raise SystemExit(1)


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".data"),
    show_default=True,
    help="Where data and logs are kept.",
)
def up(data: Path) -> None:
    """Run everything until Ctrl-C, with data that persists.

    Without settings: embedded Postgres and Redis, and the emulator of Microsoft's identity platform. With
    WORKER_CLIENT_ID and its secret it asks Microsoft instead, and uses WORKER_DATABASE_URL and WORKER_REDIS_URL if both
    are set. It refuses to run the emulator against stores that are set.
    """
    with devkit_imports():
        from worker.devkit import demo as show  # noqa: PLC0415

    end_in_good_order()
    try:
        show.up(data.resolve())
    except StackError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        click.echo("Stopped.")


COMMANDS: tuple[click.Command, ...] = (demo, up)


@contextmanager
def devkit_imports() -> Iterator[None]:
    """Around imports of the devkit, which needs the extra `demo`."""
    # Ctrl-C ends the process at once: an exception may be dropped during an import, and there is nothing to tidy up.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: os._exit(_INTERRUPTED))
    try:
        yield
    except ModuleNotFoundError as missing:
        msg = f"{missing.name} is not installed: pip install 'token-refresh-worker[demo]'"
        raise click.ClickException(msg) from None


def end_in_good_order() -> None:
    """A supervisor's SIGTERM tidies up just as Ctrl-C does, and the first of them is the last that is heard."""

    def interrupt(_signum: int, _frame: FrameType | None) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)
        raise KeyboardInterrupt

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, interrupt)
