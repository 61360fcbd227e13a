"""What tests put into the outbox, and a look into it."""

import json
from datetime import timedelta

from tests.factories import NOW
from worker.cache import OutboxStore
from worker.domain.account import AccountId

TIMES = [NOW.isoformat(), *[(NOW + timedelta(hours=1)).isoformat()] * 2]
#: New tokens of an account that is stored as version 1, whichever it is.
ENTRY = json.dumps({"email": "x", "base": 1, "version": 2, "tokens": ["AA==", None, None], "times": TIMES}).encode()


def kept(outbox: OutboxStore) -> dict[AccountId, bytes]:
    """All that is in it."""
    return {account: value for _cursor, page in outbox.pages() for account, value in page.items()}
