"""What tests put into the outbox, and a look into it."""

from datetime import timedelta

from tests.factories import NOW
from worker.cache import OutboxStore
from worker.domain.account import AccountId, Status
from worker.domain.policy import AccountUpdate
from worker.domain.token import Sealed

#: What does not open, whichever keys are at hand; an encoded value of an older program among it.
GARBAGE = [b"", b"\xff", b"garbage", b"[]", b"[" * 200_000, b"{}", b'{"tokens": ["AA=="]}', b"\x01\x02k1" + bytes(40)]


def pending(account: AccountId, *, based_on: int = 1, **changes: object) -> AccountUpdate:
    """New tokens of an account that is stored as version 1."""
    values = {
        "account_id": account,
        "email": "waiting@contoso.com",
        "based_on": based_on,
        "lease_id": None,
        "status": Status.ACTIVE,
        "due_at": NOW + timedelta(hours=1),
        "access_token": Sealed(b"access"),
        "obtained_at": NOW,
        "expires_at": NOW + timedelta(hours=1),
    }
    return AccountUpdate(**{**values, **changes})  # type: ignore[arg-type]  # of several types


def kept(outbox: OutboxStore) -> dict[AccountId, bytes]:
    """All that is in it."""
    return {account: value for _cursor, page in outbox.pages() for account, value in page.items()}
