"""Acts on accounts, their actors and reasons."""

import enum
import re
from dataclasses import dataclass
from datetime import datetime

from worker.domain.errors import InvalidInput

_REASON_LIMIT = 500  # characters
_TOKENLIKE = re.compile(r"\S{64,}")  # characters; shorter than any token


class Action(enum.StrEnum):
    """An act that is recorded."""

    SAVED = "saved"  #: a sign-in, by the application
    CONNECTED = "connected"
    IMPORTED = "imported"
    REFRESHED = "refreshed"  #: by an operator
    PAUSED = "paused"
    RESUMED = "resumed"
    DISCONNECTED = "disconnected"
    ERASED = "erased"
    RENAMED = "renamed"
    EXPORTED = "exported"
    TOKEN_PRINTED = "token_printed"  # noqa: S105 - no password
    KEYS_ROTATED = "keys_rotated"
    BREAKER_TRIED = "breaker_tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """The user of the operating system, the machine and the program; and the reason that an operator has given."""

    user: str
    host: str
    program: str
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """An act at an instant on so many accounts; ``account`` names the only one."""

    at: datetime
    user: str
    host: str
    program: str
    action: str
    detail: str | None
    reason: str | None
    accounts: int
    account: str | None


def parse_reason(text: str) -> str:
    """A reason as it is stored. Raises InvalidInput, which does not quote it."""
    reason = " ".join(text.split())
    if not reason or len(reason) > _REASON_LIMIT or not reason.isprintable():
        msg = f"a reason must be 1 to {_REASON_LIMIT} characters that print"
        raise InvalidInput(msg)
    if _TOKENLIKE.search(reason):
        raise InvalidInput("a reason must not hold a word as long as a token, because it is stored in plain text")
    return reason
