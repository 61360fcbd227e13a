"""The token request that MSAL writes, captured once and used for many refresh tokens."""

import string
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any, NoReturn
from urllib.parse import quote_plus, urlencode
from uuid import uuid4

import msal

from worker.domain.secret import Secret
from worker.identity.curl import HttpRequest, header_lines
from worker.identity.msal_transport import FORM_TYPE, with_query

_LIFETIME = timedelta(seconds=10)  # MSAL's client assertions are valid for a minute more at least
_CORRELATION_ID = "client-request-id"
_PER_REQUEST_HEADERS = frozenset({_CORRELATION_ID, "x-client-last-telemetry"})  # the latter reports another account
_UNRESERVED = f"{string.ascii_letters}{string.digits}-._~".encode()  # RFC 3986 2.3


def _correlation_ids() -> Iterator[str]:
    """Unique UUIDs: a random one, of which only the end changes from request to request."""
    prefix = str(uuid4())[:-12]
    return (f"{prefix}{number:012x}" for number in count())


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """A token request for any refresh token of one app, authority and set of scopes.

    MSAL's requests differ in two things only, the refresh token and the correlation id, and each takes MSAL a tenth of
    a refresh's CPU.
    """

    url: str
    headers: tuple[str, ...] = field(repr=False)
    form: str = field(repr=False)
    captured_at: datetime
    _ids: Iterator[str] = field(default_factory=_correlation_ids, repr=False)

    def is_fresh(self, now: datetime) -> bool:
        return timedelta(0) <= now - self.captured_at < _LIFETIME

    def for_token(self, refresh_token: Secret) -> HttpRequest:
        """The request that spends this refresh token."""
        headers = (*self.headers, f"{_CORRELATION_ID}: {next(self._ids)}")
        return HttpRequest(self.url, headers, f"{self.form}&refresh_token={_form_value(refresh_token.reveal())}")


def capture(app: msal.ClientApplication, scopes: Sequence[str], *, now: datetime) -> RequestTemplate:
    """Let MSAL write a token request, and interrupt it before it sends the request. Raises what MSAL raises.

    MSAL never sees the response: it raises after a refresh token was rotated if anything else in the response is odd,
    reports one account's error in the next one's request, and logs tokens.
    """
    request: dict[str, Any] = {}

    def post(url: str, **arguments: Any) -> NoReturn:
        request.update(arguments, url=url)
        raise _Captured

    with suppress(_Captured):
        app.acquire_token_by_refresh_token("placeholder", list(scopes), post=post)
    if not request:
        raise RuntimeError("MSAL has sent no token request")
    headers = {name: value for name, value in request["headers"].items() if name not in _PER_REQUEST_HEADERS}
    form = {name: value for name, value in request["data"].items() if name != "refresh_token"}
    url = with_query(request["url"], request.get("params"))
    return RequestTemplate(url, header_lines({**headers, **FORM_TYPE}), urlencode(form), now)


class _Captured(Exception):
    """Interrupts MSAL. Carries nothing, because the request contains the client secret."""


def _form_value(text: str) -> str:
    """The value encoded for a form. Refresh tokens need no escapes, which quote_plus finds out five times as slowly."""
    if text.isascii() and not text.encode().translate(None, _UNRESERVED):
        return text
    return quote_plus(text)
