"""The command ``celery flower``, which Celery finds by an entry point: Flower's own, if Flower is installed."""

from typing import Any

import click

try:
    from flower.command import flower as command
except ModuleNotFoundError as error:
    _missing = error.name

    @click.command("flower", context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(**_: Any) -> None:
        """Monitor the workers; needs the extra `flower`."""
        raise click.ClickException(f"{_missing} is not installed: pip install 'token-refresh-worker[flower]'")
