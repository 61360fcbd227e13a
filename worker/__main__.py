"""``token-worker`` and ``python -m worker``."""

import gc
import os
import signal

_GC_THRESHOLD = 100_000  # new objects; imports make many that stay, at which the collector looks again and again
_INTERRUPTED = 130  # exit code of a process that SIGINT ends


def main() -> None:
    """The console script."""
    # Ctrl-C during the imports would print a traceback, or be lost, because importlib drops exceptions in callbacks of
    # its own. Nothing needs to be cleaned up yet.
    gc.set_threshold(_GC_THRESHOLD)
    handler = signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from worker.cli import main as run  # noqa: PLC0415

    signal.signal(signal.SIGINT, handler)
    run()


if __name__ == "__main__":
    main()
