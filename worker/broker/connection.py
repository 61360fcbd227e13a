"""A connection to the broker that waits for seconds, not minutes."""

from contextlib import suppress

from amqp.exceptions import AMQPError
from kombu import Connection
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from worker.broker.address import broker_address
from worker.broker.repair import complete_prefixes

_TIMEOUT = 2.0  # seconds to connect to the broker, and for each of its replies

#: For kombu: the seconds between two attempts of beat or a worker to connect. Its own go up to 30.
RETRY = {"interval_start": 1, "interval_step": 1, "interval_max": 4}

#: The exceptions of kombu for a broker that cannot be used.
BROKER_ERRORS = (KombuError, AMQPError, RedisError, OSError)


def connect(url: str, *, prefix: str = "") -> Connection:
    """A connection of its own, not from Celery's pool, which all Celery applications of the process share.

    It opens at first use, and each call through it tries once. ``prefix`` begins the names of all queues in Redis.
    """
    complete_prefixes()
    address = broker_address(url, prefix=prefix)
    return Connection(
        address.url,
        ssl=address.ssl,
        credential_provider=address.credential_provider,
        transport_options={
            **address.transport_options,
            "max_retries": 0,
            "socket_timeout": _TIMEOUT,
            "socket_connect_timeout": _TIMEOUT,
            "retry_on_timeout": False,
        },
    )


def close(connection: Connection) -> None:
    """Close a connection, even if it is broken."""
    with suppress(*BROKER_ERRORS, OperationalError):
        connection.release()


def answers(url: str, *, prefix: str = "") -> bool:
    """Whether the broker lets a client in."""
    connection = connect(url, prefix=prefix)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0)
    except BROKER_ERRORS:
        return False
    finally:
        close(connection)
    return True
