"""The services for one command."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.bootstrap import Services


@contextmanager
def services(*, reason: str | None = None) -> Iterator["Services"]:
    """The services for one command. ``reason`` is the operator's, and recorded with what the command does."""
    # With SQLAlchemy, MSAL and pydantic, a second's worth, for which help, keygen or a typing error should not wait.
    from worker.bootstrap import bootstrap  # noqa: PLC0415
    from worker.observability.actor import current_actor  # noqa: PLC0415
    from worker.settings import Settings, load  # noqa: PLC0415

    gc.freeze()  # modules stay to the end, where the collector would look through them for a third of a second

    opened = bootstrap(load(Settings), actor=current_actor(program="token-worker", reason=reason))
    try:
        yield opened
    finally:
        opened.close()
