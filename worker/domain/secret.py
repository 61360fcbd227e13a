"""Tokens and keys: in the clear, where they never show themselves, and sealed."""

from typing import NewType

Sealed = NewType("Sealed", bytes)

_VISIBLE = bytes(range(0x20, 0x7F))


class Secret:
    """A token, password or key that does not show itself: its repr is empty and it does not pickle.

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
    """Whether it is visible ASCII and spaces alone, as RFC 6749 appendix A wants a token."""
    return text.isascii() and not text.encode().translate(None, _VISIBLE)  # isprintable takes four times as long
