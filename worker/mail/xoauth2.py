"""SASL XOAUTH2: what the client says, and what an error challenge means.

Source: developers.google.com, "OAuth 2.0 Mechanism"; learn.microsoft.com, "Authenticate an IMAP, POP or SMTP connection
using OAuth". Exchange refuses without a challenge; Google and Dovecot send one first and want an empty line back.
"""

import base64
import binascii
import json

from worker.domain.errors import InvalidInput
from worker.domain.token import Secret

MECHANISM = "XOAUTH2"
_ENOUGH = 4  # replies: more than any server has use for


def initial_response(user: str, token: Secret) -> str:
    """Before base64. Raises InvalidInput for a user that could smuggle in a field of its own."""
    if not user.isprintable():
        raise InvalidInput("the user of a mailbox holds a control character")
    return f"user={user}\x01auth=Bearer {token.reveal()}\x01\x01"


class Conversation:
    """The client's side: the token at first, an empty line to whatever else the server asks.

    The token never goes along with the command itself. Microsoft's are longer than some servers take a line for
    (RFC 4954, 4: then the response waits for the challenge), and client libraries log commands, but not responses.
    """

    def __init__(self, user: str, token: Secret) -> None:
        self._response = initial_response(user, token)
        self._replies = 0
        self.complaint = ""  #: what the error challenge said, for people

    def reply(self, challenge: bytes) -> str:
        """The answer to a challenge, both without base64."""
        self._replies += 1
        if self._replies == 1:
            return self._response
        if self._replies > _ENOUGH:
            raise EndlessChallenge
        self.complaint = self.complaint or explain(challenge)
        return ""

    def reply_line(self, challenge: bytes) -> bytes:
        """The answer to a challenge, both in base64, as they are on the wire."""
        return base64.b64encode(self.reply(_decoded(challenge)).encode())


class EndlessChallenge(Exception):
    """The server keeps asking."""

    def __init__(self) -> None:
        super().__init__("the server keeps asking for more")


def explain(challenge: bytes) -> str:
    """An error challenge in words, such as "status 401, scope mail"; empty if it holds nothing of the kind."""
    try:
        document = json.loads(challenge)
    except ValueError:
        return ""
    if not isinstance(document, dict):
        return ""
    return ", ".join(f"{name} {document[name]}" for name in ("status", "scope") if isinstance(document.get(name), str))


def _decoded(line: bytes) -> bytes:
    try:
        return base64.b64decode(line)
    except binascii.Error:
        return b""
