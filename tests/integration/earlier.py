"""Tokens as releases before the binding have sealed them."""

import os

from tests.constants import ANN
from tests.integration.installation import Installation
from worker.domain.account import AccountId
from worker.domain.binding import Binding, binding_of
from worker.domain.token import Sealed, Secret
from worker.vault import MasterKey, Purpose, Vault, _aad, _cipher, _KeyedHash

_TOKENS = (Purpose.ACCESS_TOKEN, Purpose.REFRESH_TOKEN)


def seal_unbound(secret: Secret, account: AccountId, purpose: Purpose, key: MasterKey) -> Sealed:
    """The format of version 1, without a mark and a binding."""
    header, nonce = bytes((1, len(key.id))) + key.id.encode(), os.urandom(12)
    cipher = _cipher(_KeyedHash(key.purpose_keys()[purpose]), account)
    known = _aad(header, purpose, account, Binding(b""))
    return Sealed(header + nonce + cipher.encrypt(nonce, secret.reveal().encode(), known))


def unbind(installation: Installation, email: str = ANN, change: str = "") -> None:
    """Store the account as an earlier release has, with the columns that it had: a SET list."""
    account, [key] = installation.account(email), installation.settings.keys
    stored = dict(zip(_TOKENS, (account.access_token, account.refresh_token), strict=True))
    values = {}
    for purpose, sealed in stored.items():
        if sealed:
            secret = Vault([key]).open(sealed, account.id, purpose, binding_of(account))
            values[purpose.value] = seal_unbound(secret, account.id, purpose, key)
    assignments = ", ".join([*(f"{column} = :{column}" for column in values), *([change] if change else [])])
    installation.query(f"UPDATE mail_credentials SET {assignments} WHERE id = :id", id=account.id, **values)
    installation.services.redis.flushall()
