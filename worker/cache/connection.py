"""The connection to Redis, and what its failures become."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from redis import ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.backoff import NoBackoff
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis names it so
    MasterDownError,
    ReadOnlyError,
    RedisError,
)
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from worker.cache.keys import Keys
from worker.domain.errors import Unavailable
from worker.domain.redis_url import RedisAddress, parse
from worker.redis_failures import reason
from worker.redis_login import PasswordFile

_TIMEOUT = 1.0  # seconds; a consumer must not wait longer than this to learn that Redis is away


class RedisClient(Redis):
    """Redis, with the names of this fleet's keys there."""

    def __init__(self, pool: ConnectionPool, names: Keys) -> None:
        super().__init__(connection_pool=pool)
        self.auto_close_connection_pool = True
        self.names = names


def connect(url: str, *, prefix: str = "") -> RedisClient:
    """A client with a pool of its own. Make it after a fork. Connects at first use."""
    return RedisClient(_pool(parse(url)), Keys(prefix))


def _pool(address: RedisAddress) -> ConnectionPool:
    times: dict[str, Any] = {"socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT}
    options: dict[str, Any] = times | {
        "db": address.database,
        # A pooled connection may have died, or lead to a server that is a replica now. The client closes it.
        "retry": Retry(NoBackoff(), 1, supported_errors=(ConnectionError, ReadOnlyError, MasterDownError)),
        "health_check_interval": 30,
        **_login(address),
    }
    if address.socket:
        del options["socket_connect_timeout"]
        return ConnectionPool(connection_class=UnixDomainSocketConnection, path=address.socket, **options)
    if address.master:
        times["retry"] = Retry(NoBackoff(), 0)  # the next sentinel is asked instead
        times |= {"username": address.sentinel_username, "password": address.sentinel_password}
        sentinels = Sentinel(address.hosts, sentinel_kwargs=times | _tls(address))  # type: ignore[no-untyped-call]
        return SentinelConnectionPool(address.master, sentinels, **options | _tls(address))  # type: ignore[no-untyped-call]
    [(host, port)] = address.hosts
    if address.tls is not None:
        options |= {"connection_class": SSLConnection, **address.tls}
    return ConnectionPool(host=host, port=port, **options)


def _tls(address: RedisAddress) -> dict[str, Any]:
    return {} if address.tls is None else {"ssl": True, **address.tls}


def _login(address: RedisAddress) -> dict[str, Any]:
    if address.password_file:
        return {"credential_provider": PasswordFile(address.username, address.password_file)}
    return {"username": address.username, "password": address.password}


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
