"""The HTTP below MSAL. It fetches metadata; a token request it takes down instead of sending it."""

import email.utils
import json
import string
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, NoReturn
from urllib.parse import quote_plus, urlencode
from uuid import uuid4

from worker.domain.microsoft import Answer
from worker.domain.outcome import Misconfigured, Scope, Transient
from worker.domain.secret import Secret
from worker.identity.wire import Message, Reply, Wire, WireError, header_lines

_FORM = "application/x-www-form-urlencoded"
_CORRELATION = "client-request-id"
_OF_ONE_ACCOUNT = frozenset({_CORRELATION, "x-client-last-telemetry"})  # the latter of the one before
_UNRESERVED = f"{string.ascii_letters}{string.digits}-._~".encode()  # RFC 3986 2.3
_CLIENT_ERROR = range(400, 500)
_SERVER_ERROR = 500
_TOO_MANY_REQUESTS = 429


class NotForMsal(Exception):
    """The platform has failed, and MSAL would only say so in its own words."""


@dataclass(frozen=True, slots=True)
class _Response:
    """What MSAL's http_client protocol returns."""

    status_code: int
    text: str
    headers: Mapping[str, str]

    def raise_for_status(self) -> None:
        if self.status_code >= _CLIENT_ERROR.start:
            raise NotForMsal


#: What MSAL is told instead of no answer while it polls for a device code: that it may go on.
NO_ANSWER = "no_answer"
_NOT_YET = _Response(400, json.dumps({"error": "authorization_pending", "suberror": NO_ANSWER}), {})


def patient(post: Callable[..., Any]) -> Callable[..., Any]:
    """``post`` for polling with: no answer, or one of no use, says nothing about the user."""

    def ask(url: str, **request: Any) -> Any:
        try:
            response = post(url, **request)
        except WireError:
            return _NOT_YET
        useful = response.status_code < _SERVER_ERROR and _json_object(response.text) is not None
        return response if useful else _NOT_YET

    return ask


class TokenEndpoint:
    """MSAL's http_client."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._last = threading.local()

    def forget(self) -> None:
        """Call before discovery: an earlier status must not be taken for this one's."""
        self._last.discovery_status = None

    def discovery_outcome(self) -> Transient | Misconfigured:
        """What a refused or unusable discovery document means: a 4xx is a wrong authority, the rest may pass."""
        status = getattr(self._last, "discovery_status", None)
        if status in _CLIENT_ERROR and status != _TOO_MANY_REQUESTS:
            return Misconfigured(code=f"discovery_http_{status}", scope=Scope.TENANT)
        return Transient(code="discovery_failed", scope=Scope.SERVICE)

    def get(
        self, url: str, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None, **_: object
    ) -> _Response:
        reply = self._wire.ask(Message(_with(url, params), header_lines(headers or {})))
        self._last.discovery_status = reply.status
        return _response(reply)

    def post(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **_: object,
    ) -> _Response:
        return _response(self._wire.ask(_posted(url, params, headers or {}, data or {})))


def _response(reply: Reply) -> _Response:
    return _Response(reply.status, reply.body.decode("utf-8", "replace"), {})


def _with(url: str, params: Mapping[str, str] | None) -> str:
    return f"{url}?{urlencode(params)}" if params else url


def _posted(url: str, params: Mapping[str, str] | None, headers: Mapping[str, str], data: Mapping[str, Any]) -> Message:
    return Message(_with(url, params), header_lines({**headers, "Content-Type": _FORM}), urlencode(data))


def _correlation_ids() -> Iterator[str]:
    """UUIDs that nobody else has: a random one, of which only the end changes from question to question."""
    series = str(uuid4())[:-12]
    return (f"{series}{number:012x}" for number in count())


@dataclass(frozen=True, slots=True)
class Letter:
    """A token request as MSAL has written it, for whichever refresh token of the same app, authority and scopes.

    MSAL would write the same for the next one but for two things, the token and the correlation id, and takes a tenth
    of a refresh's CPU for it. Its client assertion is good for a minute more at least.
    """

    url: str
    headers: tuple[str, ...] = field(repr=False)
    form: str = field(repr=False)
    written_at: datetime
    _ids: Iterator[str] = field(default_factory=_correlation_ids, repr=False)

    def about(self, refresh_token: Secret) -> Message:
        """The request that spends this token."""
        headers = (*self.headers, f"{_CORRELATION}: {next(self._ids)}")
        return Message(self.url, headers, f"{self.form}&refresh_token={_form_value(refresh_token.reveal())}")


def _form_value(text: str) -> str:
    """As it stands in a form. Refresh tokens need no escapes, which quote_plus takes five times as long to see."""
    if text.isascii() and not text.encode().translate(None, _UNRESERVED):
        return text
    return quote_plus(text)


class _Written(Exception):
    """Ends MSAL's call once it has said what to send."""

    def __init__(self, message: Message) -> None:
        super().__init__()
        self.message = message


def dictated(call: Callable[[Callable[..., Any]], object], *, now: datetime) -> Letter:
    """What MSAL would send: ``call`` makes it spend some refresh token, with the given function for its own POST.

    Its opinion of the answer is not asked for: it raises after a refresh token was rotated if anything else in the
    answer is odd, remembers one account's error for the next one's question, and logs tokens.
    """
    try:
        call(_dictate)
    except _Written as written:
        message = written.message
        return Letter(message.url, message.headers, message.body or "", now)
    raise RuntimeError("MSAL has asked nothing")


def _dictate(
    url: str,
    *,
    headers: Mapping[str, str],
    data: Mapping[str, Any],
    params: Mapping[str, str] | None = None,
    **_: object,
) -> NoReturn:
    sent = {name: value for name, value in headers.items() if name not in _OF_ONE_ACCOUNT}
    form = {name: value for name, value in data.items() if name != "refresh_token"}
    raise _Written(_posted(url, params, sent, form))


def read(reply: Reply) -> Answer:
    """An answer of the token endpoint, off the wire."""
    headers = reply.headers
    return Answer(
        status=reply.status,
        body=_json_object(reply.body),
        retry_after=parse_retry_after(headers.get("retry-after"), headers.get("date")),
        correlation_id=headers.get("x-ms-request-id") or headers.get("client-request-id"),
    )


def parse_retry_after(value: str | None, server_date: str | None) -> timedelta | None:
    """Retry-After as seconds or HTTP date (RFC 9110 10.2.3); a date counts from the server's own clock, not ours."""
    if not value:
        return None
    if value.strip().isdecimal():
        return timedelta(seconds=min(int(value), 86_400))
    until, sent = _http_date(value), _http_date(server_date or "")
    if until is None:
        return None
    return min(max(until - (sent or until), timedelta(0)), timedelta(days=1))


def _http_date(value: str) -> datetime | None:
    try:
        parsed = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _json_object(body: bytes | str) -> dict[str, Any] | None:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None
