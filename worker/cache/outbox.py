"""What Microsoft has given and Postgres could not take: kept without expiry until it can. Values come sealed."""

from collections.abc import Collection, Iterator, Mapping
from typing import cast
from uuid import UUID

from redis import Redis
from redis.exceptions import RedisError

from worker.cache.connection import raises_unavailable, unavailable
from worker.domain.account import AccountId

_KEY = "token-worker:outbox"  # a hash: one value per account, the newest

_PAGE = 250  # values of up to 12 KB: one command each way, far within its timeout

_DISCARD = """
for number = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[number]) == ARGV[number + 1] then redis.call('HDEL', KEYS[1], ARGV[number]) end
end
"""


class OutboxStore:
    """Thread-safe. Every method raises Unavailable without Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._discard = redis.register_script(_DISCARD)

    @raises_unavailable
    def put(self, values: Mapping[AccountId, bytes]) -> None:
        """Keep values, each replacing what the account had."""
        self._redis.hset(_KEY, mapping={str(account): value for account, value in values.items()})

    @raises_unavailable
    def add(self, values: Mapping[AccountId, bytes]) -> None:
        """Keep values of accounts that have none yet; what somebody else has kept meanwhile is as good."""
        pipeline = self._redis.pipeline(transaction=False)
        for account, value in values.items():
            pipeline.hsetnx(_KEY, str(account), value)
        pipeline.execute()

    @raises_unavailable
    def get(self, account: AccountId) -> bytes | None:
        """What the account has, or None."""
        return cast("bytes | None", self._redis.hget(_KEY, str(account)))

    @raises_unavailable
    def among(self, accounts: Collection[AccountId]) -> frozenset[AccountId]:
        """Those of ``accounts`` that have something here."""
        if not self._redis.exists(_KEY):  # as ever, but for outages
            return frozenset()
        kept = cast("list[bytes | None]", self._redis.hmget(_KEY, [str(account) for account in accounts]))
        return frozenset(account for account, value in zip(accounts, kept, strict=True) if value is not None)

    def pages(self, cursor: int = 0) -> Iterator[tuple[int, dict[AccountId, bytes]]]:
        """What is kept, in parts that fit in memory, each with the cursor from which to go on after it: 0 at the end.

        A part may be empty though more follow. What is there all the while is in at least one of them, and cursors stay
        good, whatever is put or discarded meanwhile (https://valkey.io/commands/scan/, guarantees).
        """
        while True:
            try:
                page = cast("tuple[int, dict[bytes, bytes]]", self._redis.hscan(_KEY, cursor, count=_PAGE))
            except RedisError as error:
                raise unavailable(error) from None
            cursor, kept = page
            yield cursor, {account: value for field, value in kept.items() if (account := _account(field))}
            if cursor == 0:
                return

    @raises_unavailable
    def size(self) -> int:
        """How many accounts have something here."""
        return self._redis.hlen(_KEY)

    @raises_unavailable
    def discard(self, values: Mapping[AccountId, bytes]) -> None:
        """Forget values that have been stored, but none that has been replaced by a newer one meanwhile."""
        arguments = [part for account, value in values.items() for part in (str(account), value)]
        self._discard(keys=[_KEY], args=arguments)


def _account(field: bytes) -> AccountId | None:
    """None for a stray field of somebody else's."""
    try:
        return AccountId(UUID(field.decode()))
    except ValueError:
        return None
