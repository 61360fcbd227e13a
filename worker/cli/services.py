"""The services for one command. Their modules are imported here, because they take a second."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from worker.bootstrap import Services
    from worker.domain.audit import Actor
    from worker.settings import Settings
    from worker.views import Views

# ruff: noqa: PLC0415 - see above


@contextmanager
def services(*, reason: str | None = None) -> Iterator["Services"]:
    """Everything that a worker has: for commands that change something or ask Microsoft.

    ``reason`` is the operator's, and recorded with what the command does.
    """
    from worker.bootstrap import bootstrap

    configure_logging()
    opened = bootstrap(_settings(), actor=_actor(reason))
    try:
        yield opened
    finally:
        opened.close()
        _forget_garbage()


@contextmanager
def views(*, reason: str | None = None) -> Iterator["Views"]:
    """The services of commands that only show something, which start in half the time."""
    from worker.views import Views

    if click.get_current_context().obj == "INFO":
        configure_logging()
    opened = Views(_settings(), actor=_actor(reason))
    try:
        yield opened
    finally:
        opened.close()
        _forget_garbage()


def configure_logging() -> None:
    """Log as the options before the command say. Needed by all that may log; the import takes a tenth of a second."""
    from worker.observability import logging

    logging.configure(level=click.get_current_context().obj)


def _settings() -> "Settings":
    from worker.settings import Settings, load

    return load(Settings)


def _actor(reason: str | None) -> "Actor":
    from worker.observability.actor import current_actor

    return current_actor(program="token-worker", reason=reason)


def _forget_garbage() -> None:
    """At the end of the process the collector would look through all modules for a third of a second."""
    gc.freeze()
