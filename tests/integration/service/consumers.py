"""A consumer in a process of its own. Each of its threads reads all mailboxes."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from tests.waiting import HANG_LIMIT
from worker.client import TokenClient
from worker.settings import Settings

Results = dict[str, set[str]]  # the tokens that were served, by account


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The work of a process, and its settings."""

    settings: dict[str, str]
    now: datetime
    emails: Sequence[str]
    threads: int


def consume(order: Order, start: Barrier, results: "Connection[Results]") -> None:
    """Send the tokens that the threads got. All processes begin at the same moment."""
    emails = order.emails
    with TokenClient(Settings.model_validate(order.settings), utcnow=lambda: order.now) as client:
        client.get_many([])  # imports and wires all services

        def read(first: int) -> Results:
            """Each thread begins at another account, so that all of them meet.

            Half of the accounts are read in one call.
            """
            turned = [*emails[first:], *emails[:first]]
            if first % 2:
                return {email: {token.value} for email, token in client.get_many(turned).items()}  # type: ignore[union-attr]  # or the test fails
            return {email: {client.get(email).value} for email in turned}

        with ThreadPoolExecutor(order.threads) as pool:
            start.wait(HANG_LIMIT)
            read_by_all = list(pool.map(read, range(order.threads)))
    results.send({email: set().union(*(each[email] for each in read_by_all)) for email in emails})
    results.close()
