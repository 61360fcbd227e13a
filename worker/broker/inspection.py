"""Trials of the doctor at the broker: to queue, take and confirm a message, and to hear a broadcast.

It uses a queue and an exchange of its own, and removes them.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

from kombu import Consumer, Exchange, Producer, Queue

from worker.broker.connection import BROKER_ERRORS, close, connect
from worker.domain.errors import Unavailable
from worker.redis_failures import reason

_TIMEOUT = 2.0  # seconds for a message to arrive
_BROADCAST = "token-worker:doctor"  # a constant, because a user of Redis is granted channels by their names
_REPETITIONS = 5  # of a broadcast, because a subscription takes a moment


class BrokerTrial:
    """A connection to the broker for a few trials. Every method raises Unavailable."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._name = f"token-worker:doctor:{uuid4()}"

    def queue(self) -> None:
        """Queue a message, take it and confirm it, as beat and a worker do."""
        exchange = Exchange(self._name, durable=False, auto_delete=True)
        self._send_and_receive(exchange, Queue(self._name, exchange, routing_key=self._name, **_TEMPORARY))

    def broadcast(self) -> None:
        """Publish to subscribers, as ``celery inspect`` does."""
        exchange = Exchange(_BROADCAST, type="fanout", durable=False, auto_delete=True)
        self._send_and_receive(exchange, Queue(f"{self._name}:listener", exchange, **_TEMPORARY))

    def _send_and_receive(self, exchange: Exchange, queue: Queue) -> None:
        received: list[Any] = []
        with _channel(self._connection) as channel:
            bound = queue(channel)
            bound.declare()
            try:
                with Consumer(channel, [bound], callbacks=[lambda _body, message: received.append(message)]):
                    for _ in range(_REPETITIONS):
                        Producer(channel, exchange).publish("", routing_key=queue.routing_key, expiration=60)
                        with suppress(TimeoutError):
                            self._connection.drain_events(timeout=_TIMEOUT / _REPETITIONS)
                        if received:
                            break
                for message in received:
                    message.ack()
            finally:
                bound.delete()
        if not received:
            raise Unavailable("a message that was sent has not arrived")


_TEMPORARY: dict[str, Any] = {"durable": False, "exclusive": True, "auto_delete": True, "expires": 60}


@contextmanager
def broker_trial(url: str, *, prefix: str = "") -> Iterator[BrokerTrial]:
    """Connect to the broker. ``prefix`` is that of the namespace. Raises Unavailable."""
    connection = connect(url, prefix=prefix)
    try:
        yield BrokerTrial(connection)
    finally:
        close(connection)


@contextmanager
def _channel(connection: Any) -> Iterator[Any]:
    try:
        with connection.channel() as channel:
            yield channel
    except BROKER_ERRORS as error:
        raise Unavailable(f"the broker cannot be used: {reason(error)}") from None
