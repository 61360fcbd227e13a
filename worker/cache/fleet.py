"""The mark of the fleet that uses the keys of a namespace."""

from typing import cast
from uuid import UUID

from redis.exceptions import ResponseError

from worker.cache.connection import RedisClient, raises_unavailable

_LENGTH = 36  # characters of a UUID


class FleetMarker:
    """Thread-safe. Every method raises Unavailable while Redis is unavailable."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self.key = redis.names.fleet

    @raises_unavailable
    def claim(self, fleet: UUID) -> UUID | None:
        """Mark the namespace as that of ``fleet``, unless it has a mark. Returns the mark that it has then.

        A value that no fleet has written is replaced.
        """
        found = self._read()
        if found is None:
            self._redis.set(self.key, str(fleet))
            found = self._read()
        return found

    def _read(self) -> UUID | None:
        try:
            return UUID(cast("bytes", self._redis.getrange(self.key, 0, _LENGTH)).decode())
        except (ResponseError, ValueError):  # a key of another type; not a UUID
            return None
