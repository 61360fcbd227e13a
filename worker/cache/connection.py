"""The connection to Redis, and what its failures become."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, MasterDownError, ReadOnlyError, RedisError  # noqa: A004
from redis.retry import Retry

from worker.cache.keys import Keys
from worker.domain.errors import Unavailable
from worker.redis_failures import reason

_TIMEOUT = 1.0  # seconds; a consumer must not wait longer than this to learn that Redis is away


class RedisClient(Redis):
    """Redis, with the names of this fleet's keys there."""

    def __init__(self, pool: ConnectionPool, names: Keys) -> None:
        super().__init__(connection_pool=pool)
        self.auto_close_connection_pool = True
        self.names = names


def connect(url: str, *, prefix: str = "") -> RedisClient:
    """A client with a pool of its own. Make it after a fork. Connects at first use."""
    pool = ConnectionPool.from_url(
        url,
        socket_timeout=_TIMEOUT,
        socket_connect_timeout=_TIMEOUT,
        # A pooled connection may have died, or lead to a server that is a replica now. The client closes it.
        retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError, ReadOnlyError, MasterDownError)),
        health_check_interval=30,
    )
    return RedisClient(pool, Keys(prefix))


P = ParamSpec("P")
T = TypeVar("T")


def raises_unavailable(call: Callable[P, T]) -> Callable[P, T]:
    """For a method that talks to Redis: what the client raises becomes Unavailable."""

    @wraps(call)
    def translated(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except RedisError as error:
            raise unavailable(error) from None

    return translated


def unavailable(error: RedisError) -> Unavailable:
    """The exception to raise instead: without the server's words, which may repeat a value."""
    return Unavailable(f"Redis cannot be used: {reason(error)}")


@raises_unavailable
def server_time(url: str) -> datetime:
    """The time of Redis. Raises Unavailable."""
    with connect(url) as client:
        seconds, microseconds = cast("tuple[int, int]", client.time())
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)
