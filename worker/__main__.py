"""``token-worker`` and ``python -m worker``."""

import sys

_INTERRUPTED = 130


def main() -> None:
    """The console script."""
    try:
        from worker.cli import main as run  # noqa: PLC0415 - it takes a moment, in which Ctrl-C should be no traceback
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
