"""What a mail server's refusal means: pure.

Texts are Exchange's, Dovecot's and Gmail's; response codes are those of RFC 5530 (IMAP), RFC 2449 and 3206 (POP) and
RFC 4954 (SMTP).
"""

import enum
import re
from dataclasses import dataclass
from datetime import timedelta

_MAILBOX = re.compile(
    r"authenticated but not connected"  # Exchange, IMAP, to the first command after a login that went well
    r"|\b5\.7\.139\b"  # Exchange, SMTP: switched off for tenant or mailbox, or a policy is in the way
    r"|\[(AUTHORIZATIONFAILED|CONTACTADMIN|PRIVACYREQUIRED|NOPERM|CANNOT|SYS/PERM)\]",
    re.IGNORECASE,
)
_LATER = re.compile(
    r"throttled|too many|server (is )?unavailable|temporar|try again|suggested backoff"
    r"|\[(UNAVAILABLE|LIMIT|INUSE|IN-USE|SERVERBUG|LOGIN-DELAY|SYS/TEMP)\]",
    re.IGNORECASE,
)
_BACKOFF = re.compile(r"suggested backoff time: (\d{1,9}) milliseconds", re.IGNORECASE)
_TOKENLIKE = re.compile(r"[\w+/=-]{40,}")
_QUOTED = 200


class Refusal(enum.Enum):
    """Whom a refusal is about."""

    TOKEN = enum.auto()  #: another token may be taken
    MAILBOX = enum.auto()  #: no token would be
    LATER = enum.auto()  #: the server's own trouble


@dataclass(frozen=True, slots=True)
class Answer:
    """How a server refused: IMAP's NO or BAD, POP's -ERR or SMTP's code, and its words."""

    status: str
    text: str

    @property
    def quoted(self) -> str:
        """Its words, short, and without anything that could be a token: some servers repeat what they did not like."""
        return _TOKENLIKE.sub("…", self.text)[:_QUOTED]

    @property
    def retry_after(self) -> timedelta | None:
        """How long Exchange asks to be left alone."""
        found = _BACKOFF.search(self.text)
        return timedelta(milliseconds=int(found[1])) if found else None

    @property
    def refusal(self) -> Refusal:
        """What it means; in doubt the token is to blame, because finding out costs one refresh and no more."""
        if _MAILBOX.search(self.text):
            return Refusal.MAILBOX
        if _LATER.search(self.text) or self.status.startswith("4"):
            return Refusal.LATER
        return Refusal.TOKEN if self.status in {"NO", "-ERR", "535"} else Refusal.MAILBOX
