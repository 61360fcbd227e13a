"""The longest that a queue may be, so that a writer to the broker keeps no worker busy after the writes have ended."""

from contextlib import suppress
from typing import Any

import structlog
from kombu.transport import redis as transport
from redis.exceptions import ResponseError

from worker.broker.queues import ON_DEMAND, REFRESH

#: Seconds between two looks.
INTERVAL = 5.0

# Messages. A consumer waits 20 seconds, in which a hundred children answer some thousand requests. A sweep keeps 64
# batches in the queue, and empties its own.
_LONGEST = 2000

_log = structlog.get_logger(__name__)


def drop_overflow(channel: Any) -> None:
    """Drop the oldest messages beyond the limit. Their senders no longer wait."""
    if isinstance(channel, transport.Channel):  # RabbitMQ limits a queue by a policy, max-length
        for queue in (ON_DEMAND, REFRESH):
            _trim(channel, queue)


def _trim(channel: Any, queue: str) -> None:
    with channel.conn_or_acquire() as client:
        for name in (channel._q_for_pri(queue, priority) for priority in channel.priority_steps):
            with suppress(ResponseError):  # a key of another type, which the next read deletes
                overflow = client.llen(name) - _LONGEST
                if overflow > 0:
                    client.ltrim(name, 0, _LONGEST - 1)
                    _log.warning("Messages dropped, because the queue is too long", queue=queue, messages=overflow)
