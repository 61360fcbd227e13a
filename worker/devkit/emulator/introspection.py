"""Introspection of access tokens (RFC 7662), for mail servers in tests. Microsoft has no such endpoint."""

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime

import jwt

from worker.devkit.emulator.keys import SigningKey

_INACTIVE: Mapping[str, object] = {"active": False}  # RFC 7662 2.2: without a reason
_LENIENT = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}


def introspect(key: SigningKey, token: str, now: datetime) -> Mapping[str, object]:
    """The claims of an access token that this emulator signed, if it lives at ``now``."""
    # The library would compare `exp` with the real time, but the emulator has its own clock.
    try:
        claims = jwt.decode(token, key.public, ["RS256"], options=_LENIENT)  # type: ignore[arg-type]
    except jwt.PyJWTError:
        return _INACTIVE
    if "scp" not in claims or claims["exp"] <= now.timestamp():  # an id token is signed by the same key
        return _INACTIVE
    return {
        "active": True,
        "token_type": "Bearer",
        "username": claims["preferred_username"],
        "scope": claims["scp"],
        "client_id": claims["appid"],
        **{name: claims[name] for name in ("sub", "aud", "iss", "exp", "iat", "nbf")},
    }


def basic_credentials(header: str) -> Mapping[str, str]:
    """The client that an Authorization header names, as form fields. Empty if it names none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return {}
    try:
        client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return {}
    return {"client_id": client_id, "client_secret": secret}
