"""A worker for on-demand refreshes in a thread of the test, on its clock, with real messages and real services."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from redis import Redis

from worker.bootstrap import Services
from worker.broker import ON_DEMAND
from worker.domain.account import AccountId
from worker.domain.errors import AccountError
from worker.domain.token import TokenRequirement


@dataclass(slots=True)
class Workers:
    """Records the arguments of the messages that the worker received."""

    received: list[list[Any]] = field(default_factory=list)


@contextmanager
def working(services: Services) -> Iterator[Workers]:
    """Inside the block, these services handle the messages of the queue."""
    workers, stopped = Workers(), threading.Event()

    def work() -> None:
        while not stopped.is_set():
            for arguments in queued(services.redis, take=True):
                workers.received.append(arguments)
                with suppress(AccountError):
                    services.tokens.serve(AccountId(UUID(arguments[0])), _requirement(*arguments[1:]))
            stopped.wait(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield workers
    finally:
        stopped.set()
        thread.join()


def queued(redis: Redis, *, take: bool = False) -> list[list[Any]]:
    """The arguments of the tasks in the queue, oldest first."""
    messages: Any = redis.lrange(ON_DEMAND, 0, -1)
    if take and messages:
        redis.ltrim(ON_DEMAND, 0, -1 - len(messages))
    return [json.loads(base64.b64decode(json.loads(message)["body"]))[0] for message in reversed(messages)]


def _requirement(min_ttl: float | None, rejected: int | None) -> TokenRequirement:
    return TokenRequirement(min_ttl=None if min_ttl is None else timedelta(seconds=min_ttl), newer_than=rejected)
