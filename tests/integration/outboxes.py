"""A look into the outbox, for all tests that put something there."""

from worker.cache import Outbox
from worker.domain.credential import AccountId


def kept(outbox: Outbox) -> dict[AccountId, bytes]:
    """All that is in it."""
    return {account: value for _cursor, page in outbox.pages() for account, value in page.items()}
