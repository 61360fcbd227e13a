"""``token-worker`` and ``python -m worker``."""

import os
import signal

_INTERRUPTED = 130  # exit code of a process that SIGINT ends


def main() -> None:
    """The console script."""
    # Ctrl-C during the imports would print a traceback, or be lost, because importlib drops exceptions in callbacks of
    # its own. Nothing needs to be cleaned up yet.
    handler = signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from worker.cli import main as run  # noqa: PLC0415

    signal.signal(signal.SIGINT, handler)
    run()


if __name__ == "__main__":
    main()
