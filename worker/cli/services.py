"""The services for one command."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.bootstrap import Services


@contextmanager
def services() -> Iterator["Services"]:
    """The services for one command."""
    # With SQLAlchemy, MSAL and pydantic, a second's worth, for which help, keygen or a typing error should not wait.
    from worker.bootstrap import bootstrap  # noqa: PLC0415
    from worker.settings import Settings, load  # noqa: PLC0415

    gc.freeze()  # modules stay to the end, where the collector would look through them for a third of a second

    opened = bootstrap(load(Settings))
    try:
        yield opened
    finally:
        opened.close()
