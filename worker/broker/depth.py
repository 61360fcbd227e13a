"""How many messages wait in the queues."""

from collections.abc import Sequence
from typing import Any

from kombu import Connection
from kombu.exceptions import ChannelError

from worker.broker.connection import BROKER_ERRORS, close, connect
from worker.domain.errors import Unavailable
from worker.redis_failures import reason


class QueueDepths:
    """Over one connection, which is opened at first use. Not thread-safe. Make it after a fork, and close it."""

    def __init__(self, url: str, *, prefix: str = "") -> None:
        self._url = url
        self._prefix = prefix
        self._connection: Connection | None = None

    def read(self, queues: Sequence[str]) -> dict[str, int]:
        """The number of messages in each queue. Raises Unavailable, after a few seconds at most."""
        try:
            self._connection = self._connection or connect(self._url, prefix=self._prefix)
            return {name: _depth(self._connection.default_channel, name) for name in queues}
        except BROKER_ERRORS as error:
            self.close()
            raise Unavailable(f"the broker cannot be used: {reason(error)}") from None

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            close(connection)


def _depth(channel: Any, queue: str) -> int:
    try:
        return int(channel.queue_declare(queue, passive=True).message_count)
    except ChannelError:  # an empty queue does not exist in Redis
        return 0
