"""Seals tokens with AES-256-GCM and opens them again. It knows the keys, but not where a ciphertext is stored.

Format of a sealed value, version 1::

    0x01 | key id length (1 byte) | key id (ASCII) | nonce (12 bytes) | ciphertext and tag (AES-256-GCM)

The AES key is ``HMAC-SHA256(HMAC-SHA256(master key, "token-worker/1/" + purpose), account id)`` and the associated
data is everything before the nonce, the purpose, a zero byte and the account id.

Tokens are bound to the terms of their account (domain/binding.py). The binding is appended to the associated data, and
the key id to ``+`` and the binding's CRC-32 in hexadecimal. The mark distinguishes a changed binding from damage. To a
program that knows no bindings, a bound token is under an unknown key, so it leaves the account to others.

There is a key per account and purpose for two reasons. Random 96-bit nonces are safe for 2**32 seals per key (NIST
SP 800-38D 8.3), so any number of mailboxes may share a master key. And the key of one purpose opens no value of
another; a consumer's access key consists of the keys of two purposes.
"""

import base64
import enum
import hmac
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar
from zlib import crc32

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from worker.domain.account import AccountId
from worker.domain.binding import Binding
from worker.domain.errors import AlteredAccount, ConfigurationError, UnknownKey, UnreadableSecret
from worker.domain.token import Sealed, Secret

_VERSION = 1
_NONCE, _TAG, _KEY = 12, 16, 32  # bytes
_BLOCK = 64  # bytes that SHA-256 reads at a time
_MAKE_ACCESS_KEYS = "token-worker keygen --access"
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")

_ALTERED = (
    "address, client, authority, scopes or mail servers of the account were changed in Postgres beside this program;"
    " undo that and resume the account, or connect it again"
)


class Purpose(enum.StrEnum):
    """The kind of a sealed value. A value of one purpose never opens as one of another."""

    ACCESS_TOKEN = "access_token"  # noqa: S105 - a name, no secret
    REFRESH_TOKEN = "refresh_token"  # noqa: S105
    CACHE_ENTRY = "cache_entry"
    PENDING_RESULT = "pending_result"
    FINGERPRINT = "fingerprint"
    EXPORT = "export"


_UNBOUND = Binding(b"")
_BOUND = frozenset({Purpose.ACCESS_TOKEN, Purpose.REFRESH_TOKEN})
_MARK = "+"  # no letter of a key id; behind it follow 8 hexadecimal digits


@dataclass(frozen=True, slots=True, repr=False)
class MasterKey:
    """A named 256-bit key."""

    setting: ClassVar[str] = "WORKER_ENCRYPTION_KEYS"

    id: str
    material: bytes

    def __repr__(self) -> str:
        return f"MasterKey({self.id!r})"

    def purpose_keys(self) -> dict[Purpose, bytes]:
        """A key for each purpose."""
        return {
            purpose: hmac.digest(self.material, f"token-worker/1/{purpose}".encode(), "sha256") for purpose in Purpose
        }


@dataclass(frozen=True, slots=True, repr=False)
class AccessKey:
    """A consumer's part of a master key. It opens access tokens and cache entries, and no refresh token.

    ``material`` consists of the keys of these two purposes, 32 bytes each, in this order.
    """

    setting: ClassVar[str] = "WORKER_ACCESS_KEYS"

    id: str
    material: bytes

    def __repr__(self) -> str:
        return f"AccessKey({self.id!r})"

    def purpose_keys(self) -> dict[Purpose, bytes]:
        return {Purpose.ACCESS_TOKEN: self.material[:_KEY], Purpose.CACHE_ENTRY: self.material[_KEY:]}


class Vault:
    """Seals with the newest key and opens with any key. Thread-safe."""

    def __init__(self, keys: Sequence[MasterKey | AccessKey]) -> None:
        self._newest = keys[0]
        self._purposes = {
            (key.id, purpose): _KeyedHash(value) for key in keys for purpose, value in key.purpose_keys().items()
        }

    @property
    def newest_key_id(self) -> str:
        return self._newest.id

    def seal(self, secret: Secret, account: AccountId, purpose: Purpose, binding: Binding = _UNBOUND) -> Sealed:
        """Encrypt a secret for one account and purpose; a token also for its ``binding``."""
        return self._seal(secret.reveal().encode(), account, purpose, os.urandom(_NONCE), binding)

    def open(self, sealed: Sealed, account: AccountId, purpose: Purpose, binding: Binding = _UNBOUND) -> Secret:
        """Decrypt a value.

        Raises UnknownKey if this process does not have its key, and AlteredAccount if it is bound to other terms.
        Raises UnreadableSecret if the value is damaged, or belongs to another account or purpose.
        """
        _check_binding(purpose, binding)
        header, name = _split(sealed)
        key_id, mark, digits = name.partition(_MARK)
        purpose_key = self._purposes.get((key_id, purpose))
        if purpose_key is None:
            msg = f"sealed under key {key_id!r}, which is not in {self._newest.setting} for {purpose}"
            raise UnknownKey(msg)
        nonce, ciphertext = sealed[header : header + _NONCE], sealed[header + _NONCE :]
        # Values of releases before the binding have no mark. `rotate-keys` and each new token seal them with one.
        known = _aad(sealed[:header], purpose, account, binding if mark else _UNBOUND)
        try:
            plain = _cipher(purpose_key, account).decrypt(nonce, ciphertext, known)
        except InvalidTag:
            if mark and digits != _digits(binding):
                raise AlteredAccount(_ALTERED) from None
            msg = f"does not open as {purpose} of this account under key {key_id!r}"
            raise UnreadableSecret(msg) from None
        return Secret(plain.decode())

    def needs_rotation(self, sealed: Sealed) -> bool:
        """Whether a token is not bound, or sealed under another key than the newest."""
        return not sealed.startswith(key_prefix(self._newest.id))

    def rotate(self, sealed: Sealed, account: AccountId, purpose: Purpose, binding: Binding) -> Sealed:
        """Seal the same token under the newest key. Raises as ``open`` does."""
        return self.seal(self.open(sealed, account, purpose, binding), account, purpose, binding)

    def fingerprint(self, secret: Secret, account: AccountId) -> str:
        """A short keyed hash of a token. It shows whether two requests used the same token, and nothing else."""
        key = self._purposes[self._newest.id, Purpose.FINGERPRINT]
        digest = key(account.bytes + secret.reveal().encode())
        return f"{self._newest.id}:{digest[:8].hex()}"

    def _seal(
        self, plain: bytes, account: AccountId, purpose: Purpose, nonce: bytes, binding: Binding = _UNBOUND
    ) -> Sealed:
        _check_binding(purpose, binding)
        name = f"{self._newest.id}{_MARK}{_digits(binding)}" if binding else self._newest.id
        header = bytes((_VERSION, len(name))) + name.encode()
        cipher = _cipher(self._purposes[self._newest.id, purpose], account)
        return Sealed(header + nonce + cipher.encrypt(nonce, plain, _aad(header, purpose, account, binding)))


def key_id(sealed: Sealed) -> str:
    """The id of the key that a value is sealed under. Raises UnreadableSecret if it is no sealed value."""
    return _split(sealed)[1].partition(_MARK)[0]


def key_prefix(name: str) -> bytes:
    """The first bytes of every bound token under the named key. They find the tokens that are not."""
    marked = f"{name}{_MARK}".encode()
    return bytes((_VERSION, len(marked) + len(_digits(_UNBOUND)))) + marked


def parse_keys(text: str) -> tuple[MasterKey, ...]:
    """Read ``id:base64`` pairs, separated by commas, newest first. Raises ConfigurationError, which quotes no key."""
    return tuple(MasterKey(*pair) for pair in _parse(text, MasterKey.setting, _KEY, "token-worker keygen"))


def parse_access_keys(text: str) -> tuple[AccessKey, ...]:
    """Read the text that ``format_access_keys`` writes. Raises ConfigurationError, which quotes no key."""
    return tuple(AccessKey(*pair) for pair in _parse(text, AccessKey.setting, 2 * _KEY, _MAKE_ACCESS_KEYS))


def format_access_keys(keys: Sequence[MasterKey]) -> str:
    """The value of WORKER_ACCESS_KEYS that belongs to these master keys."""
    parts = [(key.id, key.purpose_keys()) for key in keys]
    return ",".join(
        f"{name}:{base64.b64encode(made[Purpose.ACCESS_TOKEN] + made[Purpose.CACHE_ENTRY]).decode()}"
        for name, made in parts
    )


def generate_key(name: str) -> str:
    """A new key in the form of WORKER_ENCRYPTION_KEYS. Raises ConfigurationError if the name is no key id."""
    if not _KEY_ID.fullmatch(name):
        msg = f"key id {name!r} must be 1 to 32 letters, digits, '.', '_' or '-'"
        raise ConfigurationError(msg)
    return f"{name}:{base64.b64encode(os.urandom(_KEY)).decode()}"


def _parse(text: str, setting: str, size: int, make: str) -> list[tuple[str, bytes]]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        msg = f"{setting} is empty; make a key with: {make}"
        raise ConfigurationError(msg)
    pairs = [_parse_key(part, at, setting, size, make) for at, part in enumerate(parts, start=1)]
    _check_unique((name for name, _ in pairs), setting)
    return pairs


def _parse_key(part: str, at: int, setting: str, size: int, make: str) -> tuple[str, bytes]:
    name, colon, encoded = part.partition(":")
    if not colon or not _KEY_ID.fullmatch(name):
        msg = f"{setting}: entry {at} must be id:base64, its id 1 to 32 letters, digits, '.', '_' or '-'"
        raise ConfigurationError(msg)
    try:
        material = base64.b64decode(encoded, validate=True)
    except ValueError:  # also raised for a character that is not ASCII
        material = b""
    if len(material) != size:
        msg = f"{setting}: key {name!r} must be {size} bytes in base64; make one with: {make}"
        raise ConfigurationError(msg)
    return name, material


def _check_unique(names: Iterable[str], setting: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            msg = f"{setting}: key id {name!r} appears twice; every key needs its own id"
            raise ConfigurationError(msg)
        seen.add(name)


def _split(sealed: bytes) -> tuple[int, str]:
    """The length of the header, and the key id with its mark in it. Raises UnreadableSecret."""
    if len(sealed) < 2 or sealed[0] != _VERSION:  # noqa: PLR2004 - bytes of version and length
        raise UnreadableSecret("not a value sealed by this program")
    header = 2 + sealed[1]
    if len(sealed) < header + _NONCE + _TAG:
        raise UnreadableSecret("a sealed value is cut short")
    name = sealed[2:header].decode("latin-1")
    if not _KEY_ID.fullmatch(name.partition(_MARK)[0]):
        raise UnreadableSecret("a sealed value is damaged")
    return header, name


def _aad(header: bytes, purpose: Purpose, account: AccountId, binding: Binding) -> bytes:
    return header + purpose.encode() + b"\x00" + account.bytes + binding


def _check_binding(purpose: Purpose, binding: Binding) -> None:
    if bool(binding) != (purpose in _BOUND):
        msg = f"a value of purpose {purpose} is {'bound' if purpose in _BOUND else 'not bound'}"
        raise ValueError(msg)


def _digits(binding: Binding) -> str:
    return f"{crc32(binding):08x}"


class _KeyedHash:
    """HMAC-SHA256 (RFC 2104) that hashes its key once instead of once per message. It takes a third of the time."""

    def __init__(self, key: bytes) -> None:
        block = key.ljust(_BLOCK, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in block))

    def __call__(self, message: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


def _cipher(purpose_key: _KeyedHash, account: AccountId) -> AESGCM:
    return AESGCM(purpose_key(account.bytes))
