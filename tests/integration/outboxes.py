"""Values that tests put into the outbox, and a look into it."""

from datetime import timedelta

from tests.factories import NOW
from worker.cache import OutboxStore
from worker.domain.account import AccountId, Status
from worker.domain.policy import AccountUpdate
from worker.domain.token import Sealed

#: Values that cannot be opened with any key. One is an encoded value of an older version.
GARBAGE = [b"", b"\xff", b"garbage", b"[]", b"[" * 200_000, b"{}", b'{"tokens": ["AA=="]}', b"\x01\x02k1" + bytes(40)]


def pending(account: AccountId, *, based_on: int = 1, **changes: object) -> AccountUpdate:
    """New tokens of an account whose stored version is 1."""
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
    return AccountUpdate(**{**values, **changes})  # type: ignore[arg-type]  # their types differ


def kept(outbox: OutboxStore) -> dict[AccountId, bytes]:
    """All values in the outbox."""
    return {account: value for _cursor, page in outbox.pages() for account, value in page.items()}
