"""Tokens: in the clear, where they never show themselves, sealed, and as a consumer gets them."""

import base64
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NewType

Sealed = NewType("Sealed", bytes)
SealedText = NewType("SealedText", str)  # in base64, as JSON carries it

#: No access token lives longer. Continuous access evaluation reaches 28 h; the rest allows for clocks that differ.
LONGEST_LIFETIME = timedelta(hours=48)

_VISIBLE = bytes(range(0x20, 0x7F))


class Secret:
    """A token, password or key. Its repr is empty and it does not pickle.

    >>> Secret("hunter2")
    Secret()
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> str:
        msg = "a Secret cannot be pickled: tokens never travel through a broker or a cache in the clear"
        raise TypeError(msg)


def is_visible(text: str) -> bool:
    """Whether ``text`` is visible ASCII and spaces alone, as RFC 6749 appendix A requires of a token."""
    return text.isascii() and not text.encode().translate(None, _VISIBLE)  # isprintable takes four times as long


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """A live access token, as a consumer gets it. Times are aware and in UTC.

    ``version`` grows with every new token of the account; pass it to ``report_rejected``.
    """

    email: str
    secret: Secret
    obtained_at: datetime
    expires_at: datetime
    version: int

    @property
    def value(self) -> str:
        """The token itself: for the Authorization header or XOAUTH2, and for nothing else."""
        return self.secret.reveal()

    def ttl(self, now: datetime) -> timedelta:
        """How long the token lives from ``now`` on; negative once it has expired."""
        return self.expires_at - now


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequirement:
    """``min_ttl``: how long the token must still live. ``newer_than``: the version that a mail server has rejected."""

    min_ttl: timedelta | None = None
    newer_than: int | None = None

    def is_newer(self, token: AccessToken) -> bool:
        """Whether the token is another one than the rejected one."""
        return self.newer_than is None or token.version > self.newer_than

    def accepts(self, token: AccessToken | None, *, now: datetime) -> bool:
        """Whether the token is better than none: it lives, and was not rejected."""
        return token is not None and token.expires_at > now and self.is_newer(token)


def as_text(sealed: Sealed) -> SealedText:
    return SealedText(base64.b64encode(sealed).decode())
