"""Repairs of kombu's Redis transport. That of ``close`` is needed while Celery 5.7.0 is the newest.

If Redis ends while a BRPOP is outstanding, ``Channel.close`` raises before it has marked itself closed. Celery 5.7.0
then closes the connection again, without a transport, and the worker exits with AttributeError. The repair reads the
outstanding reply first and ignores the errors of a dead connection. Then the close ends, and the worker reconnects.
``tests/e2e/test_broker_loss.py`` kills Redis under load and fails without this.
"""

import queue
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from kombu.transport import redis as transport

_AFFECTED = ("5.7.0",)


def complete_prefixes() -> None:
    """Let kombu prefix the keys of all commands that are sent: without these it would look at another fleet's."""
    prefixed = transport.GlobalKeyPrefixMixin.PREFIXED_SIMPLE_COMMANDS
    prefixed.extend(command for command in ("EXISTS", "LTRIM", "SISMEMBER", "TYPE") if command not in prefixed)


def repair() -> None:
    """Wrap ``Channel.close``, once, and only in the versions that need it."""
    complete_prefixes()
    channel_class: Any = transport.Channel
    if version("celery") not in _AFFECTED or getattr(channel_class.close, "repaired", False):
        return
    close = channel_class.close

    def close_after_reading(channel: Any) -> None:
        if channel._in_poll:
            # These errors mean that the connection is dead.
            with suppress(queue.Empty, *channel.connection_errors):
                channel._brpop_read()
        close(channel)

    close_after_reading.repaired = True  # type: ignore[attr-defined]
    channel_class.close = close_after_reading
