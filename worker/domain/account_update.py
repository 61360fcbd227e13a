"""What the result of a refresh changes in the account's row."""

from dataclasses import dataclass
from datetime import datetime

from worker.domain.account import AccountId, Failure, LeaseId, Status
from worker.domain.secret import Sealed


@dataclass(slots=True, kw_only=True)
class AccountUpdate:
    """One write of a result. A token that is None stays as it is.

    The write happens if the row still has the version ``based_on`` and the lease ``lease_id``. New tokens are also
    written late, see db/updates.py: without a lease, and where ``replaces`` is still the digest of the stored token.
    """

    account_id: AccountId
    email: str
    based_on: int
    lease_id: LeaseId | None  # None for a result that has waited in the outbox
    status: Status
    due_at: datetime
    failure: Failure | None = None
    claims: str | None = None
    strikes: int = 0
    struck_at: datetime | None = None
    aged_out: bool = False  # the grant ended at a fixed age, which is worth remembering
    access_token: Sealed | None = None
    obtained_at: datetime | None = None
    expires_at: datetime | None = None
    refresh_token: Sealed | None = None
    replaces: bytes | None = None  # SHA-256 of the sealed refresh token that was spent for ``refresh_token``

    @property
    def version(self) -> int:
        """The account's version after the write: new tokens make a new one."""
        return self.based_on + (self.access_token is not None)
