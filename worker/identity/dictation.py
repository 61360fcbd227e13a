"""MSAL writes and signs each kind of request; here it is written down, and copied for as long as it stays true."""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn
from urllib.parse import quote_plus, urlencode, urlsplit
from uuid import uuid4

from worker.domain.credential import Secret
from worker.identity.line import Message, WireError

KEPT = 30.0  #: seconds; a signed assertion that MSAL has made lives for a minute more than MSAL would use it

_GAP = "where-the-refresh-token-goes"
# The correlation id is each question's own; the last telemetry would tell Microsoft one account's failure in another's.
_NOT_COPIED = frozenset({"client-request-id", "x-client-last-telemetry"})


class Dictation:
    """One request as MSAL has written it, with gaps for what is each question's own."""

    def __init__(self, url: str, headers: Mapping[str, Any], form: Mapping[str, Any]) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise WireError("connect_failed")
        self._endpoint = parts.hostname, parts.port or 443
        copied = {name: value for name, value in headers.items() if name.lower() not in _NOT_COPIED}
        fields = {"Host": parts.netloc, **copied, "Content-Type": "application/x-www-form-urlencoded"}
        path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        if " " in path or not all(line.isascii() and line.isprintable() for line in lines):
            raise ValueError("a request line or header that cannot be sent")
        self._head = "".join(f"{line}\r\n" for line in lines)
        before, gap, self._after = urlencode(form).partition(_GAP)
        if not gap:
            raise ValueError("MSAL has left no place for the refresh token")
        self._before = f"\r\n\r\n{before}"
        self._length = len(before) + len(self._after)

    def filled(self, refresh_token: Secret) -> Message:
        """The request about one refresh token."""
        token = quote_plus(refresh_token.reveal())
        own = f"client-request-id: {uuid4()}\r\nContent-Length: {self._length + len(token)}"
        return Message(self._endpoint, f"{self._head}{own}{self._before}{token}{self._after}".encode("ascii"))


class _Written(Exception):
    """Ends MSAL's call once it has said what to send."""

    def __init__(self, dictation: Dictation) -> None:
        super().__init__()
        self.dictation = dictation


def take_down(ask: Callable[[str, Callable[..., Any]], object]) -> Dictation:
    """What MSAL would send: ``ask`` lets it, with the given refresh token, and the given function instead of its POST.

    Its opinion of the answer is not asked for: it raises after a refresh token was rotated if anything else is odd,
    remembers one account's error for the next one's question, and logs tokens. Raises WireError for an endpoint that
    cannot be reached, and whatever MSAL raises for a question that cannot be asked.
    """
    try:
        ask(_GAP, _write)
    except _Written as written:
        return written.dictation
    raise RuntimeError("MSAL has asked nothing")


def _write(url: str, *, headers: Mapping[str, Any], data: Mapping[str, Any], **_: object) -> NoReturn:
    raise _Written(Dictation(url, headers, data))
