"""``token-worker`` and ``python -m worker``."""

import os
import signal

_INTERRUPTED = 130


def main() -> None:
    """The console script."""
    # What it takes to start is imported first. Ctrl-C would be a traceback there; or nothing at all, because importlib
    # drops exceptions that come up in callbacks of its own. There is nothing to tidy up yet.
    heard = signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from worker.cli import main as run  # noqa: PLC0415

    signal.signal(signal.SIGINT, heard)
    run()


if __name__ == "__main__":
    main()
