"""The HTTP below MSAL, for metadata and sign-ins, and what an answer of the token endpoint looks like."""

import email.utils
import json
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from worker.domain.microsoft import Answer
from worker.domain.outcome import Misconfigured, Scope, Transient
from worker.identity.line import Reply

_CONNECT_TIMEOUT = 3.0  # seconds
_READ_TIMEOUT = 15.0  # seconds of silence
_FORM = "application/x-www-form-urlencoded"
_LARGEST_ANSWER = 1 << 20  # bytes; a real one has about 6 KB
_CLIENT_ERROR = range(400, 500)
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


class TokenEndpoint:
    """MSAL's http_client over pooled urllib3: own timeouts and CA, no cookies, no redirects, no environment."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._pool = urllib3.PoolManager(
            num_pools=16,
            retries=False,
            timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT, read=_READ_TIMEOUT),
            ssl_context=context,
        )
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
        status, body = self._send("GET", url, params, headers, None)
        self._last.discovery_status = status
        return _Response(status, body.decode("utf-8", "replace"), {})

    def post(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **_: object,
    ) -> _Response:
        status, body = self._send("POST", url, params, headers, data)
        return _Response(status, body.decode("utf-8", "replace"), {})

    def close(self) -> None:
        self._pool.clear()

    def _send(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        data: Mapping[str, Any] | None,
    ) -> tuple[int, bytes]:
        if params:
            url = f"{url}?{urlencode(params)}"
        sent = dict(headers or {})
        if data is not None:
            sent["Content-Type"] = _FORM
        response = self._pool.request(
            method,
            url,
            body=None if data is None else urlencode(data),
            headers=sent,
            redirect=False,
            preload_content=False,
        )
        try:
            body = response.read(_LARGEST_ANSWER + 1)
            if len(body) > _LARGEST_ANSWER:
                response.close()  # what is left of it must not be taken for the next answer
                body = b""
        finally:
            response.release_conn()
        return response.status, body


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


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def network_code(error: HTTPError) -> str:
    """What went wrong on the way, as a stable code. Whether the request arrived is unknown after a ``timeout``."""
    cause = getattr(error, "reason", None) or error
    match cause:
        case NameResolutionError():
            return "dns"
        case NewConnectionError():  # in urllib3 a kind of the next
            return "connect_failed"
        case ConnectTimeoutError():
            return "connect_timeout"
        case ReadTimeoutError():
            return "timeout"
        case SSLError():
            return "tls"
        case _:
            return "connection_lost"
