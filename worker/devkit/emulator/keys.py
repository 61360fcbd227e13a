"""The RSA key that signs the emulator's tokens, and its public half as a JWKS."""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa


class SigningKey:
    """A new 2048-bit key, in memory only."""

    def __init__(self) -> None:
        self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        numbers = self._private.public_key().public_numbers()
        self._modulus, self._exponent = _encoded(numbers.n), _encoded(numbers.e)
        digest = hashlib.sha256(self._modulus.encode()).digest()
        self.kid = base64.urlsafe_b64encode(digest[:20]).rstrip(b"=").decode()

    @property
    def public(self) -> rsa.RSAPublicKey:
        return self._private.public_key()

    def sign(self, claims: Mapping[str, object]) -> str:
        return jwt.encode(dict(claims), self._private, "RS256", headers={"kid": self.kid})

    def jwks(self) -> dict[str, object]:
        key = {
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": self.kid,
            "n": self._modulus,
            "e": self._exponent,
        }
        return {"keys": [key]}


@cache
def process_key() -> SigningKey:
    """One key per process, because tests build hundreds of emulators and the generation of a key is slow."""
    return SigningKey()


def _encoded(number: int) -> str:
    octets = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
