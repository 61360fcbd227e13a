"""Counts of the emulator's requests and responses, as frozen values for assertions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class AccountStatistics:
    """`instants` are the times of all token requests, `refreshed_at` those of the refreshes that were granted."""

    requests: int = 0
    successes: int = 0
    instants: tuple[datetime, ...] = ()
    refreshed_at: tuple[datetime, ...] = ()

    @property
    def failures(self) -> int:
        return self.requests - self.successes

    @property
    def refreshes(self) -> int:
        return len(self.refreshed_at)


@dataclass(frozen=True, slots=True)
class Statistics:
    """The totals include requests of unknown accounts (an unknown token, a code still pending).

    A success is a grant that was made. It counts even if a fault kept the response from the client.
    """

    requests: int
    successes: int
    refreshes: int
    by_account: Mapping[str, AccountStatistics]

    @property
    def failures(self) -> int:
        return self.requests - self.successes


@dataclass(slots=True)
class Tally:
    """The current counters of one account. Not thread-safe."""

    instants: list[datetime] = field(default_factory=list)
    refreshed_at: list[datetime] = field(default_factory=list)
    successes: int = 0

    def seen(self) -> AccountStatistics:
        return AccountStatistics(len(self.instants), self.successes, tuple(self.instants), tuple(self.refreshed_at))


class Ledger:
    """All counters of an emulator. Not thread-safe."""

    def __init__(self) -> None:
        self._requests = self._successes = self._refreshes = 0
        self._by_account: dict[str, Tally] = {}

    def open(self, email: str) -> Tally:
        return self._by_account.setdefault(email, Tally())

    def requested(self, email: str | None, now: datetime) -> None:
        self._requests += 1
        if email is not None:
            self.open(email).instants.append(now)

    def granted(self, email: str, now: datetime, *, refresh: bool) -> None:
        tally = self.open(email)
        self._successes += 1
        tally.successes += 1
        if refresh:
            self._refreshes += 1
            tally.refreshed_at.append(now)

    def seen(self) -> Statistics:
        accounts = {email: tally.seen() for email, tally in self._by_account.items()}
        return Statistics(self._requests, self._successes, self._refreshes, MappingProxyType(accounts))
