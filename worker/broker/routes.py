"""Routes of messages that do not depend on the broker's keys, because a writer to the broker may change these.

kombu looks up in Redis which queues a message goes to, and keeps each message there until it is acknowledged. Another
value under those keys stops beat, and keeps a worker from starting. So messages for our queues go straight there, a
foreign value is replaced, and unacknowledged messages stay in the memory of the worker: messages of this program are
acknowledged before they run, and worth nothing later.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import structlog
from kombu.transport import redis as transport
from redis.exceptions import ResponseError

from worker.broker.queues import ON_DEMAND, REFRESH, SWEEP

_OWN = frozenset({ON_DEMAND, SWEEP, REFRESH})
_REPLIES = "reply.celery.pidbox"  # to an operator's inspection; each has a queue of its own

_log = structlog.get_logger(__name__)


def route_directly() -> None:
    """Change kombu's Redis transport. Works once per process."""
    channel_class: Any = transport.Channel
    if getattr(channel_class._lookup, "is_direct", False):
        return
    lookup = channel_class._lookup

    def lookup_unless_own(channel: Any, exchange: str, routing_key: str, default: str | None = None) -> Any:
        if exchange in _OWN:
            return [exchange]
        if exchange == _REPLIES:
            queue = f"{routing_key}.{exchange}"
            return [queue] if _is_bound(channel, exchange, routing_key, queue) else []
        return lookup(channel, exchange, routing_key, default)

    lookup_unless_own.is_direct = True  # type: ignore[attr-defined]
    channel_class._lookup = lookup_unless_own
    channel_class._restore = _restore_if_connected(channel_class._restore)
    channel_class._queue_bind = _over_foreign_keys(channel_class._queue_bind)
    channel_class._refresh_bindings = _over_foreign_keys(channel_class._refresh_bindings)
    channel_class.sweep_bindings = _over_foreign_keys(channel_class.sweep_bindings)


def _is_bound(channel: Any, exchange: str, routing_key: str, queue: str) -> bool:
    """Whether a direct exchange has this binding. No other one is read."""
    key = channel.keyprefix_queue % exchange
    with channel.conn_or_acquire() as client:
        try:
            return bool(client.sismember(key, channel.sep.join((routing_key, "", queue))))
        except ResponseError:  # a key of another type
            return False


def _restore_if_connected(restore: Callable[..., Any]) -> Callable[..., Any]:
    """At the end of a channel the messages go back to their queue, unless the connection is lost. Without this kombu
    would write them into a file."""

    @wraps(restore)
    def restored(channel: Any, message: Any, *args: Any, **options: Any) -> None:
        delivery = message.delivery_info
        if (delivery["exchange"] or delivery["routing_key"]) not in _OWN:
            return  # nothing that a worker takes is sent by another exchange
        try:
            restore(channel, message, *args, **options)
        except (*channel.connection_errors, ResponseError):
            _log.warning("A message that was fetched is lost with the connection")

    return restored


def _over_foreign_keys(write: Callable[..., Any]) -> Callable[..., Any]:
    """Replace keys of another type."""

    @wraps(write)
    def written(channel: Any, *args: Any, **options: Any) -> Any:
        try:
            return write(channel, *args, **options)
        except ResponseError:
            if not _delete_foreign_keys(channel):
                raise
            return write(channel, *args, **options)

    return written


def _delete_foreign_keys(channel: Any) -> bool:
    """Delete the keys of bindings that have another type, and return whether there were any."""
    exchanges = [*_OWN, *channel.state.exchanges]
    patterns = (channel.keyprefix_queue, channel.keyprefix_binding_permanent)
    types = {pattern % exchange: b"set" for exchange in exchanges for pattern in patterns}
    types[channel.keyprefix_binding_deadlines] = b"zset"
    with channel.conn_or_acquire() as client:
        found = {key: client.type(key) for key in types}
        foreign = [key for key, kind in found.items() if kind not in {types[key], b"none"}]
        return bool(foreign and client.delete(*foreign))
