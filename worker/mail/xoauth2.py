"""SASL XOAUTH2: what the client says, and what an error challenge means.

Source: developers.google.com, "OAuth 2.0 Mechanism"; learn.microsoft.com, "Authenticate an IMAP, POP or SMTP connection
using OAuth". Exchange rejects without a challenge; Google and Dovecot send one first and want an empty line back.
"""

import base64
import binascii
import json

from worker.domain.errors import InvalidInput
from worker.domain.token import Secret
from worker.mail.answers import Answer, MailProtocol, Phase
from worker.mail.words import shown, spellings

MECHANISM = "XOAUTH2"
_REPLY_LIMIT = 4  # replies: one with the token, one to an error challenge, and two to spare


def initial_response(user: str, token: Secret) -> str:
    """Before base64. Raises InvalidInput for a user that could smuggle in a field of its own."""
    if not user.isprintable():
        raise InvalidInput("the user of a mailbox holds a control character")
    return f"user={user}\x01auth=Bearer {token.reveal()}\x01\x01"


class Conversation:
    """The client's side of one login: the token at first, an empty line to any further challenge.

    The token never goes along with the command itself. Microsoft's tokens exceed some servers' line limit (RFC 4954,
    section 4: then the response waits for the challenge), and client libraries log commands, but not responses.
    """

    def __init__(self, protocol: MailProtocol, user: str, token: Secret) -> None:
        self._protocol = protocol
        self._response = initial_response(user, token)
        self._token = token
        self._replies = 0
        self._complaint = ""  # the words of the error challenge
        self._phase = Phase.UNSENT

    def reply(self, challenge: bytes) -> str:
        """The reply to a challenge, both without base64. Raises EndlessChallenge."""
        self._replies += 1
        if self._replies == 1:
            self._phase = Phase.SENT
            return self._response
        if self._replies > _REPLY_LIMIT:
            raise EndlessChallenge
        self._complaint = self._complaint or explain(challenge)
        return ""

    def reply_line(self, challenge: bytes | None) -> bytes:
        """The reply to a challenge, both in base64, as they are on the wire; None is imaplib's for an empty one."""
        return base64.b64encode(self.reply(_decoded(challenge or b"")).encode())

    def accepted(self) -> None:
        """The server has taken the token: what it says from now on is about the mailbox or itself."""
        self._phase = Phase.ACCEPTED

    def answer(self, status: str, words: str) -> Answer:
        """The server's no, and what its error challenge said; the words are masked here, before anything keeps them."""
        said = words or "no reason given"
        said = f"{said} ({self._complaint})" if self._complaint else said
        return Answer(protocol=self._protocol, status=status, words=self.shown(said), phase=self._phase)

    def shown(self, words: str) -> str:
        """``words`` without the token of this login."""
        return shown(words, spellings(self._response, self._token.reveal()))


class EndlessChallenge(Exception):
    """The server keeps asking."""

    def __init__(self) -> None:
        super().__init__("the server keeps asking for more")


def explain(challenge: bytes) -> str:
    """An error challenge in words, such as "status 401, scope mail"; empty if it holds nothing of the kind."""
    try:
        document = json.loads(challenge)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(document, dict):
        return ""
    return ", ".join(f"{name} {document[name]}" for name in ("status", "scope") if isinstance(document.get(name), str))


def _decoded(line: bytes) -> bytes:
    try:
        return base64.b64decode(line)
    except binascii.Error:
        return b""
