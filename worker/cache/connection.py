"""How Redis is reached: quickly, or not at all."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError, ResponseError  # noqa: A004 - redis names it so
from redis.retry import Retry

from worker.domain.errors import CacheRefused, Unavailable

_TIMEOUT = 1.0  # seconds; a consumer must not wait longer than this to learn that Redis is away


def connect(url: str) -> Redis:
    """A client with a pool of its own. Make it after a fork. Connects at first use."""
    return Redis.from_url(
        url,
        socket_timeout=_TIMEOUT,
        socket_connect_timeout=_TIMEOUT,
        retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),  # one had gone stale in the pool
        health_check_interval=30,
    )


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
    """What to raise instead: without the server's words, which may repeat a value."""
    kind = CacheRefused if isinstance(error, ResponseError) else Unavailable
    return kind(f"Redis cannot be used: {type(error).__name__}")
