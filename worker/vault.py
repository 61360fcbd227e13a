"""Seals tokens with AES-256-GCM and opens them again; knows keys, never where a ciphertext is kept.

Format of a sealed value, version 1::

    0x01 | key id length (1 byte) | key id (ASCII) | nonce (12 bytes) | ciphertext and tag (AES-256-GCM)

The AES key is ``HMAC-SHA256(HMAC-SHA256(master key, "token-worker/1/" + purpose), account id)`` and the associated
data is everything before the nonce, the purpose and the account id. A key per account and purpose keeps random
96-bit nonces safe however many mailboxes share a master key (NIST SP 800-38D 8.3: at most 2**32 seals per key), and
whoever holds only one purpose's key can open nothing else: that is what a consumer's access key is made of.
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

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from worker.domain.account import AccountId
from worker.domain.errors import ConfigurationError, UnknownKey, UnreadableSecret
from worker.domain.token import Sealed, Secret

_VERSION = 1
_NONCE = 12
_TAG = 16
_KEY = 32
_BLOCK = 64  # of SHA-256
_MAKE_ACCESS_KEYS = "token-worker keygen --access"
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")


class Purpose(enum.StrEnum):
    """What a sealed value is; one purpose's value never opens as another's."""

    ACCESS_TOKEN = "access_token"  # noqa: S105 - names, not secrets
    REFRESH_TOKEN = "refresh_token"  # noqa: S105
    CACHE_ENTRY = "cache_entry"
    PENDING_RESULT = "pending_result"
    FINGERPRINT = "fingerprint"


@dataclass(frozen=True, slots=True, repr=False)
class MasterKey:
    """A named 256-bit key."""

    setting: ClassVar[str] = "WORKER_ENCRYPTION_KEYS"

    id: str
    material: bytes

    def __repr__(self) -> str:
        return f"MasterKey({self.id!r})"

    def purpose_keys(self) -> dict[Purpose, bytes]:
        """A key for each purpose there is."""
        return {
            purpose: hmac.digest(self.material, f"token-worker/1/{purpose}".encode(), "sha256") for purpose in Purpose
        }


@dataclass(frozen=True, slots=True, repr=False)
class AccessKey:
    """What a consumer needs of a master key: access tokens and cache entries, and no refresh token.

    ``material`` is the two purposes' keys, 32 bytes each, in this order.
    """

    setting: ClassVar[str] = "WORKER_ACCESS_KEYS"

    id: str
    material: bytes

    def __repr__(self) -> str:
        return f"AccessKey({self.id!r})"

    def purpose_keys(self) -> dict[Purpose, bytes]:
        return {Purpose.ACCESS_TOKEN: self.material[:_KEY], Purpose.CACHE_ENTRY: self.material[_KEY:]}


class Vault:
    """Seals with the newest key, opens with any. Thread-safe."""

    def __init__(self, keys: Sequence[MasterKey | AccessKey]) -> None:
        self._newest = keys[0]
        self._header = key_prefix(keys[0].id)
        self._purposes = {
            (key.id, purpose): _KeyedHash(value) for key in keys for purpose, value in key.purpose_keys().items()
        }

    @property
    def newest_key_id(self) -> str:
        return self._newest.id

    def seal(self, secret: Secret, account: AccountId, purpose: Purpose) -> Sealed:
        """Encrypt for one account and purpose."""
        return self._seal(secret.reveal().encode(), account, purpose, os.urandom(_NONCE))

    def open(self, sealed: Sealed, account: AccountId, purpose: Purpose) -> Secret:
        """Decrypt.

        Raises UnknownKey for a key that is not at hand, and UnreadableSecret for a value that is damaged, or not of
        this account and purpose.
        """
        header, key_id = _split(sealed)
        purpose_key = self._purposes.get((key_id, purpose))
        if purpose_key is None:
            msg = f"sealed under key {key_id!r}, which is not in {self._newest.setting} for {purpose}"
            raise UnknownKey(msg)
        nonce, ciphertext = sealed[header : header + _NONCE], sealed[header + _NONCE :]
        try:
            plain = _cipher(purpose_key, account).decrypt(nonce, ciphertext, _aad(sealed[:header], purpose, account))
        except InvalidTag:
            msg = f"does not open as {purpose} of this account under key {key_id!r}"
            raise UnreadableSecret(msg) from None
        return Secret(plain.decode())

    def needs_rotation(self, sealed: Sealed) -> bool:
        """Whether it is sealed under another key than the newest."""
        return key_id(sealed) != self._newest.id

    def rotate(self, sealed: Sealed, account: AccountId, purpose: Purpose) -> Sealed:
        """The same secret, sealed under the newest key."""
        return self.seal(self.open(sealed, account, purpose), account, purpose)

    def fingerprint(self, secret: Secret, account: AccountId) -> str:
        """A short keyed hash by which two uses of one token can be matched, and from which nothing can be learnt."""
        key = self._purposes[self._newest.id, Purpose.FINGERPRINT]
        digest = key(account.bytes + secret.reveal().encode())
        return f"{self._newest.id}:{digest[:8].hex()}"

    def _seal(self, plain: bytes, account: AccountId, purpose: Purpose, nonce: bytes) -> Sealed:
        header = self._header
        cipher = _cipher(self._purposes[self._newest.id, purpose], account)
        return Sealed(header + nonce + cipher.encrypt(nonce, plain, _aad(header, purpose, account)))


def key_id(sealed: Sealed) -> str:
    """The id of the key it is sealed under. Raises UnreadableSecret if this is no sealed value."""
    return _split(sealed)[1]


def key_prefix(name: str) -> bytes:
    """The first bytes of everything sealed under the named key, for finding what is not."""
    return bytes((_VERSION, len(name))) + name.encode()


def parse_keys(text: str) -> tuple[MasterKey, ...]:
    """Read ``id:base64`` pairs, comma separated, newest first. Raises ConfigurationError, never showing the key."""
    return tuple(MasterKey(*pair) for pair in _parse(text, MasterKey.setting, _KEY, "token-worker keygen"))


def parse_access_keys(text: str) -> tuple[AccessKey, ...]:
    """Likewise for what ``format_access_keys`` made."""
    return tuple(AccessKey(*pair) for pair in _parse(text, AccessKey.setting, 2 * _KEY, _MAKE_ACCESS_KEYS))


def format_access_keys(keys: Sequence[MasterKey]) -> str:
    """The consumer's part of master keys, as it stands in WORKER_ACCESS_KEYS."""
    parts = [(key.id, key.purpose_keys()) for key in keys]
    return ",".join(
        f"{name}:{base64.b64encode(made[Purpose.ACCESS_TOKEN] + made[Purpose.CACHE_ENTRY]).decode()}"
        for name, made in parts
    )


def generate_key(name: str) -> str:
    """A new key as it stands in WORKER_ENCRYPTION_KEYS. Raises ConfigurationError for a name that cannot be one."""
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
    _refuse_repeated((name for name, _ in pairs), setting)
    return pairs


def _parse_key(part: str, at: int, setting: str, size: int, make: str) -> tuple[str, bytes]:
    name, colon, encoded = part.partition(":")
    if not colon or not _KEY_ID.fullmatch(name):
        msg = f"{setting}: entry {at} must be id:base64, its id 1 to 32 letters, digits, '.', '_' or '-'"
        raise ConfigurationError(msg)
    try:
        material = base64.b64decode(encoded, validate=True)
    except ValueError:  # also of a character that is not ASCII
        material = b""
    if len(material) != size:
        msg = f"{setting}: key {name!r} must be {size} bytes in base64; make one with: {make}"
        raise ConfigurationError(msg)
    return name, material


def _refuse_repeated(names: Iterable[str], setting: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            msg = f"{setting}: key id {name!r} appears twice; every key needs its own id"
            raise ConfigurationError(msg)
        seen.add(name)


def _split(sealed: bytes) -> tuple[int, str]:
    """The header's length and the key id in it."""
    if len(sealed) < 2 or sealed[0] != _VERSION:  # noqa: PLR2004 - version and length
        raise UnreadableSecret("not a value sealed by this program")
    header = 2 + sealed[1]
    if len(sealed) < header + _NONCE + _TAG:
        raise UnreadableSecret("a sealed value is cut short")
    try:
        return header, sealed[2:header].decode("ascii")
    except UnicodeDecodeError:
        raise UnreadableSecret("a sealed value is damaged") from None


def _aad(header: bytes, purpose: Purpose, account: AccountId) -> bytes:
    return header + purpose.encode() + b"\x00" + account.bytes


class _KeyedHash:
    """HMAC-SHA256 (RFC 2104) whose key is hashed once and not for every message: a third of the cost."""

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
