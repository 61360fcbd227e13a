"""The terms of an account that its sealed tokens are bound to.

A token that was sealed for one app registration, tenant, set of scopes and mail servers does not open for others. So a
row that was changed beside this program has no token sent anywhere.
"""

import json
from dataclasses import fields
from functools import lru_cache
from hashlib import sha256
from typing import NewType, Protocol

from worker.domain.account import MICROSOFT, MailServers

Binding = NewType("Binding", bytes)

_SERVERS = tuple(field.name for field in fields(MailServers))


class Bound(Protocol):
    """An account or a lease on it: the address, the terms of its grant, and its mail servers."""

    @property
    def email(self) -> str: ...
    @property
    def client(self) -> str: ...
    @property
    def authority(self) -> str | None: ...
    @property
    def scopes(self) -> tuple[str, ...]: ...
    @property
    def mail(self) -> MailServers: ...


def binding_of(account: Bound) -> Binding:
    """The binding of a stored account."""
    return binding(account.email, account.client, account.authority, account.scopes, account.mail)


def binding(email: str, client: str, authority: str | None, scopes: tuple[str, ...], mail: MailServers) -> Binding:
    """A digest of the terms, and the address. Part of the associated data of the account's sealed tokens."""
    return Binding(_terms(client, authority, scopes, mail) + email.encode())


@lru_cache(maxsize=1024)  # a fleet has few different ones
def _terms(client: str, authority: str | None, scopes: tuple[str, ...], mail: MailServers) -> bytes:
    return sha256(json.dumps([client, authority, " ".join(scopes), own_servers(mail)]).encode()).digest()


def own_servers(mail: MailServers) -> dict[str, str | int]:
    """The values that are not Microsoft's. A release that changes Microsoft's changes the binding of these alone."""
    given = {name: getattr(mail, name) for name in _SERVERS}
    return {name: value for name, value in given.items() if value and value != getattr(MICROSOFT, name)}
