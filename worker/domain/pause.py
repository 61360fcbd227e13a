"""A pause of an app registration or a tenant as a whole: it also holds the accounts that sign in later."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from worker.domain.account import email_domain
from worker.domain.selection import Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The accounts of an app registration, of a domain, or of both at once; None: of any."""

    client: str | None = None
    domain: str | None = None

    def __str__(self) -> str:
        """For a sentence: ``app registration fabrikam``, ``contoso.com``."""
        parts = [f"app registration {self.client}" if self.client else "", self.domain or ""]
        return ", ".join(filter(None, parts)) or "all accounts"

    def covers(self, client: str, email: str) -> bool:
        """Whether an account belongs to the group."""
        return self.client in (None, client) and self.domain in (None, email_domain(email))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """An operator has paused a group at ``since``."""

    group: Group
    since: datetime


def groups(selection: Selection) -> list[Group]:
    """The groups that a selection names, if it names groups and nothing else."""
    if selection != Selection(clients=selection.clients, domains=selection.domains):
        return []
    clients, domains = _or_any(selection.clients), _or_any(selection.domains)
    return [Group(client=client, domain=domain) for client in clients for domain in domains]


def _or_any(names: frozenset[str] | None) -> Sequence[str | None]:
    return sorted(names) if names else [None]
