"""Checks of messages before they are used, because a writer to the broker may send anything.

Celery ends a worker for many kinds of malformed messages, and puts the message back for the next one. It also obeys
headers: they set time limits, delay a task, and name further tasks to publish. Here a message that is not exactly a
known task with known arguments is dropped, and of the others only task, id and arguments are kept.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from queue import Empty
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from celery.worker.consumer import Consumer
from kombu.transport import redis as transport
from kombu.transport.virtual import Channel, Message
from kombu.utils.json import loads
from redis.exceptions import ResponseError

from worker.broker.overflow import INTERVAL, drop_overflow

_LONGEST_TEXT = 100  # characters of an id or a name
_GREATEST = 2**53  # the numbers that every JSON library reads exactly; logical clocks, versions and seconds are smaller
_LONGEST_TTL = 366 * 86_400  # seconds
_ID = re.compile(r"[\w.-]{1,100}")

_log = structlog.get_logger(__name__)


def check_deliveries() -> None:
    """Make kombu's Redis transport drop what is no message, in the queues and in broadcasts. Works once per process."""
    transport_class: Any = transport.Transport
    if getattr(transport_class._deliver, "checked", False):
        return
    deliver = transport_class._deliver

    def deliver_if_valid(self: Any, message: Any, queue: str) -> None:
        if _is_message(message):
            deliver(self, message, queue)
        else:
            _log_dropped()

    channel_class: Any = transport.Channel
    read = channel_class._brpop_read

    def read_or_delete(channel: Any, **options: Any) -> Any:
        try:
            return read(channel, **options)
        except ResponseError:
            if not _delete_foreign_keys(channel, channel.active_queues):
                raise
            _log_dropped()
            raise Empty from None

    channel_class._brpop_read = read_or_delete
    deliver_if_valid.checked = True  # type: ignore[attr-defined]
    transport_class._deliver = deliver_if_valid
    vars(transport)["loads"] = _loads_or_none


def _delete_foreign_keys(channel: Any, queues: Iterable[str]) -> bool:
    """Delete the keys under the names of queues that are no lists, and return whether there were any."""
    keys = [channel._q_for_pri(queue, priority) for queue in queues for priority in channel.priority_steps]
    with channel.conn_or_acquire() as client:
        foreign = [key for key in keys if client.type(key) not in {b"list", b"none"}]
        return bool(foreign and client.delete(*foreign))


class CheckedConsumer(Consumer):
    """Celery's consumer of tasks, which passes on known tasks only.

    It takes no part in *mingle* and *gossip*: by these, other processes may revoke tasks or have tasks published.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options | {"without_mingle": True, "without_gossip": True})
        timer: Any = self.timer
        timer.call_repeatedly(INTERVAL, self._drop_overflow)

    def connect(self) -> Any:
        """Connect to the broker, and delete foreign keys there, with which the queues could not be declared."""
        connection = super().connect()
        channel = connection.default_channel
        queues = self.app.amqp.queues.consume_from
        if isinstance(channel, transport.Channel) and _delete_foreign_keys(channel, queues):
            _log_dropped()
        return connection

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*args, **options)
        errors: Any = self.connection_errors  # type: ignore[attr-defined]  # missing in the stubs

        def handle_known(message: Any) -> None:
            if _reduce(message):
                handle(message)
            else:
                _log_dropped()
                message.reject_log_error(_log, errors)

        return handle_known

    def _drop_overflow(self) -> None:
        consumer: Any = self.task_consumer  # type: ignore[attr-defined]
        errors: Any = self.connection_errors  # type: ignore[attr-defined]
        with suppress(*errors):  # the consumer notices by itself that the connection is lost
            if consumer is not None and consumer.channel is not None:
                drop_overflow(consumer.channel)

    def on_decode_error(self, message: Any, exc: Exception) -> None:  # noqa: ARG002 - its text repeats the content
        _log_dropped()
        message.ack()


def _log_dropped() -> None:
    _log.warning("Dropped a message that is no request to a worker")


def _loads_or_none(text: str) -> Any:
    try:
        return loads(text)
    except Exception:  # noqa: BLE001 - RecursionError, and a `__type__` in the JSON may raise anything
        return None


def _is_message(message: Any) -> bool:
    """Whether kombu can make a message of it."""
    try:
        headers, properties = message["headers"], message["properties"]
        delivery, clock = properties["delivery_info"], headers.get("clock") or 0
        texts = (delivery["exchange"], delivery["routing_key"], properties["delivery_tag"], message["content-type"])
        made = Message(message, channel=Channel.__new__(Channel))
        return (
            all(isinstance(text, str) for text in texts)
            and isinstance(made.body, bytes)
            and "compression" not in headers
            and isinstance(clock, int)
            and 0 <= clock <= _GREATEST
        )
    except Exception:  # noqa: BLE001 - any type may be anywhere
        return False


def _reduce(message: Any) -> bool:
    """Whether it is a known task. Leaves task, id and arguments, and removes everything else."""
    try:
        task, identity = message.headers["task"], message.headers["id"]
        args, kwargs, _ = message.payload
        known = bool(_ID.fullmatch(identity)) and not kwargs and _ARGUMENTS[task].match(args)
    except Exception:  # noqa: BLE001 - any type may be anywhere
        return False
    if known:
        message.headers = {
            "lang": "py",
            "task": task,
            "id": identity,
            "root_id": identity,
            "argsrepr": repr(tuple(args)),
            "kwargsrepr": "{}",
            "ignore_result": True,
        }
        message.content_type, message.content_encoding = "application/json", "utf-8"
        message.body = json.dumps([args, {}, {}]).encode()
        message._decoded_cache = None
    return known


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT and value.isprintable()


def _is_account(value: Any) -> bool:
    return isinstance(value, str) and str(UUID(value)) == value


def _is_seconds(value: Any) -> bool:
    return value is None or (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and abs(value) <= _LONGEST_TTL
    )


def _is_version(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _GREATEST)


class _Arguments(NamedTuple):
    """The positional arguments of a task."""

    checks: tuple[Callable[[Any], bool], ...] = ()
    required: int = 0

    def match(self, args: Any) -> bool:
        return (
            isinstance(args, list)
            and self.required <= len(args) <= len(self.checks)
            and all(check(value) for check, value in zip(self.checks, args, strict=False))
        )


_ARGUMENTS: Mapping[str, _Arguments] = {
    "worker.sweep": _Arguments(),
    "worker.prune_events": _Arguments(),
    "worker.refresh_batch": _Arguments((_is_name,)),
    "worker.refresh_account": _Arguments((_is_account, _is_seconds, _is_version), required=1),
}
