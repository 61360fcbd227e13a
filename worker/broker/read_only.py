"""Lets beat and the worker leave a read-only Redis. With kombu's own connections they would not.

After a fail-over the name of the broker may lead to a replica for a while. Its connection is sound, so beat would keep
it, and fail to publish for ever. The worker would exit, because READONLY is no connection error to Celery.
``tests/e2e/test_redis_fail_over.py`` fails without this.
"""

from typing import Any

import redis
from kombu.transport import redis as transport
from redis.exceptions import ConnectionError, ReadOnlyError, ResponseError  # noqa: A004 - redis names it so


def leave_read_only_servers() -> None:
    """Let broker connections to a replica end at its first refusal, so that the next use connects anew."""
    transport.Channel.connection_class = _Connection
    transport.Channel.connection_class_ssl = _TlsConnection


def _says_replica(error: ResponseError) -> bool:
    """Whether a write was refused, or a BRPOP ended because the server has just become a replica."""
    return isinstance(error, ReadOnlyError) or str(error).startswith("UNBLOCKED")


class _Connection(redis.Connection):
    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)
        except ResponseError as error:
            if not _says_replica(error):
                raise
            self.disconnect()  # type: ignore[no-untyped-call]
            raise ConnectionError(
                "Redis is read-only, as a replica is; the broker's URL must lead to the primary"
            ) from error


class _TlsConnection(_Connection, redis.SSLConnection):
    pass
