"""Accounts on their way out, as the records that an import reads, sealed for its key or in the clear."""

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from worker.domain.account import Account, account_id
from worker.domain.binding import binding_of, own_servers
from worker.domain.errors import InvalidInput, UnreadableSecret
from worker.domain.token import Sealed, Secret
from worker.service.moving.record import Record
from worker.vault import Purpose, Vault

SEALED = "sealed"
_CLOSED = "the sealed account is damaged, or under another key"


class Exporter:
    """Opens what is stored with the keys of ``vault``, and seals it for ``transfer``, unless that is None."""

    def __init__(self, vault: Vault, transfer: Vault | None) -> None:
        self._vault = vault
        self._transfer = transfer

    def line(self, account: Account) -> str:
        """The account as a line of JSON. Raises UnreadableSecret if its refresh token does not open."""
        plain = json.dumps(self._fields(account))
        if self._transfer is None:
            return plain
        sealed = self._transfer.seal(Secret(plain), account.id, Purpose.EXPORT)
        return json.dumps({"email": account.email, SEALED: base64.b64encode(sealed).decode()})

    def _fields(self, account: Account) -> dict[str, Any]:
        known = {
            "client": account.client,
            "authority": account.authority,
            "scopes": " ".join(account.scopes),
            "labels": list(account.labels),
            **own_servers(account.mail),
        }
        given = {"email": account.email, **{name: value for name, value in known.items() if value}}
        return given | (self._tokens(account) if account.use_oauth else {"use_oauth": False})

    def _tokens(self, account: Account) -> dict[str, Any]:
        tokens: dict[str, Any] = {"refresh_token": self._opened(account, account.refresh_token, Purpose.REFRESH_TOKEN)}
        if account.access_token and account.expires_at:
            tokens["access_token"] = self._opened(account, account.access_token, Purpose.ACCESS_TOKEN)
            tokens["expires_at"] = account.expires_at.isoformat()
        obtained_at = account.obtained_at or account.refresh_token_issued_at
        return tokens | ({"obtained_at": obtained_at.isoformat()} if obtained_at else {})

    def _opened(self, account: Account, sealed: Sealed | None, purpose: Purpose) -> str:
        if sealed is None:
            raise UnreadableSecret("it has no refresh token")
        return self._vault.open(sealed, account.id, purpose, binding_of(account)).reveal()


def opened(records: Iterable[Record], transfer: Vault | None) -> Iterator[Record]:
    """The records, with the sealed ones of an export opened. One that does not open has a reason instead of fields."""
    for record in records:
        try:
            yield _opened(record, transfer) if SEALED in record.fields else record
        except (UnreadableSecret, InvalidInput, ValueError) as error:
            reason = (
                str(error) if isinstance(error, InvalidInput) else "the sealed account is damaged, or under another key"
            )
            yield replace(record, fields={}, reason=reason)


def _opened(record: Record, transfer: Vault | None) -> Record:
    if transfer is None:
        raise InvalidInput("the account is sealed; name its key with --key-file")
    sealed = Sealed(base64.b64decode(str(record.fields[SEALED]), validate=True))
    fields = json.loads(transfer.open(sealed, account_id(str(record.fields.get("email"))), Purpose.EXPORT).reveal())
    return replace(record, fields=fields)
