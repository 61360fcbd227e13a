"""A selection of accounts: which of them a list shows, or a command changes."""

from dataclasses import dataclass
from datetime import datetime

from worker.domain.account import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The accounts that fulfil every condition that is given. A condition that is None or False is not given.

    ``since``: the account came into its state, or began to fail, at this instant or later. ``expiring_before``: its
    grant ends before, see ``domain.account.grant_expires_at``.
    """

    emails: frozenset[str] | None = None  # normalized
    statuses: frozenset[Status] | None = None
    clients: frozenset[str] | None = None
    domains: frozenset[str] | None = None
    codes: frozenset[str] | None = None
    labels: frozenset[str] | None = None
    failing: bool = False
    since: datetime | None = None
    expiring_before: datetime | None = None


EVERYTHING = Selection()
