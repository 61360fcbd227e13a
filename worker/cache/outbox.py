"""Results that Postgres could not take, without a time limit, until they are delivered. Values come sealed."""

from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from typing import cast
from uuid import UUID

from redis import Redis
from redis.exceptions import RedisError

from worker.cache.connection import raises_unavailable, unavailable
from worker.domain.account import AccountId

_KEY = "token-worker:outbox"  # a hash: one value per account, the newest
_SET_ASIDE = "token-worker:outbox:unreadable"  # likewise, of values that do not open
_SET_ASIDE_FOR = int(timedelta(days=7).total_seconds())  # seconds, for an operator to look at them
_SET_ASIDE_BYTES = 65_536  # of a value; a sealed result takes about 12 KB
_PAGE = 250  # values of up to 12 KB: one command each way, far within its timeout

_DISCARD = """
for number = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[number]) == ARGV[number + 1] then redis.call('HDEL', KEYS[1], ARGV[number]) end
end
"""


class OutboxStore:
    """Thread-safe. Every method raises Unavailable while Redis is unavailable."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._discard = redis.register_script(_DISCARD)

    @raises_unavailable
    def put(self, values: Mapping[AccountId, bytes]) -> None:
        """Store values, each in the place of the one that the account had."""
        self._redis.hset(_KEY, mapping={str(account): value for account, value in values.items()})

    @raises_unavailable
    def get_many(self, accounts: Collection[AccountId]) -> dict[AccountId, bytes]:
        """The values of those of ``accounts`` that have one."""
        if not self._redis.exists(_KEY):  # as nearly always: a hash without fields does not exist
            return {}
        found = cast("list[bytes | None]", self._redis.hmget(_KEY, [str(account) for account in accounts]))
        return {account: value for account, value in zip(accounts, found, strict=True) if value is not None}

    def pages(self, cursor: int = 0) -> Iterator[tuple[int, dict[AccountId, bytes]]]:
        """All values in pages, each with the cursor from which to go on after it; 0 is the end.

        A page may be empty though more follow. A value that is there all the while is in at least one page, and cursors
        stay good while others are put or discarded (https://valkey.io/commands/scan/, guarantees).
        """
        while True:
            try:
                page = cast("tuple[int, dict[bytes, bytes]]", self._redis.hscan(_KEY, cursor, count=_PAGE))
            except RedisError as error:
                raise unavailable(error) from None
            cursor, found = page
            yield cursor, {account: value for field, value in found.items() if (account := _account(field))}
            if cursor == 0:
                return

    @raises_unavailable
    def size(self) -> int:
        """How many accounts have a value."""
        return self._redis.hlen(_KEY)

    @raises_unavailable
    def discard(self, values: Mapping[AccountId, bytes]) -> None:
        """Delete delivered values, but none that a newer one has replaced meanwhile."""
        arguments = [part for account, value in values.items() for part in (str(account), value)]
        self._discard(keys=[_KEY], args=arguments)

    @raises_unavailable
    def set_aside(self, values: Mapping[AccountId, bytes]) -> None:
        """Move values that do not open out of the way. Their first bytes are kept for a week."""
        self._redis.hset(
            _SET_ASIDE, mapping={str(account): value[:_SET_ASIDE_BYTES] for account, value in values.items()}
        )
        self._redis.expire(_SET_ASIDE, _SET_ASIDE_FOR)
        self.discard(values)


def _account(field: bytes) -> AccountId | None:
    """None for a field that no worker has written."""
    try:
        return AccountId(UUID(field.decode()))
    except ValueError:
        return None
