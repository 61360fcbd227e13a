"""An HTTP response, and how its parts are read. Pure."""

import email.utils
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

# A value that JSON's grammar delimits by itself. Only these four: a refusal is read whole or not at all.
_MEMBER = re.compile(
    r'"(access_token|refresh_token|expires_in|refresh_in)"\s*:\s*(?:"((?:[^"\\]|\\.){1,65536})"|([0-9]{1,12})\b)'
)


_MAX_DIGITS_OF_JSON = 1_000


def decode(body: bytes | str) -> dict[str, Any] | None:
    """The JSON object at the start of ``body``, or None.

    Tolerated are a byte order mark, UTF-16 and UTF-32, bytes that are not of the encoding, control characters in
    strings, anything after the object, and a key that comes twice. Of an object that is damaged or cut short, only
    tokens that are whole are taken, and their lifetimes.
    """
    text = body if isinstance(body, str) else body.decode(json.detect_encoding(body), "replace")
    text = text.lstrip("\ufeff \t\r\n")
    if not text.startswith("{"):
        return None
    try:
        decoded, _ = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return _salvaged(text)
    return decoded if isinstance(decoded, dict) else None


def _merged(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a key that comes twice the last value counts, unless it is empty."""
    merged = dict(pairs)
    if len(merged) < len(pairs):
        merged |= dict(pair for pair in pairs if pair[1])
    return merged


def _integer(digits: str) -> int:
    """Python refuses to parse thousands of digits. No number that is read here has that many."""
    return int(digits) if len(digits) <= _MAX_DIGITS_OF_JSON else 0


_DECODER = json.JSONDecoder(object_pairs_hook=_merged, parse_int=_integer, strict=False)


def _salvaged(text: str) -> dict[str, Any] | None:
    found = {name: _unescaped(quoted) if quoted else int(number) for name, quoted, number in _MEMBER.findall(text)}
    return found if found.get("access_token") else None


def _unescaped(quoted: str) -> str | None:
    try:
        text = _DECODER.decode(f'"{quoted}"')
    except ValueError:
        return None
    return text if isinstance(text, str) else None


_MAX_RETRY_AFTER = timedelta(days=1)  # a longer one is a mistake, and would keep an account waiting for its sake
_MAX_DIGITS = 9  # of a number of seconds; Python refuses to parse thousands of them


@dataclass(slots=True)
class HttpResponse:
    """A complete response. Header names are lower case; the body is empty if it was too large or damaged."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)  # may hold tokens

    @property
    def retry_after(self) -> timedelta | None:
        """Retry-After, given as seconds or as an HTTP date (RFC 9110 10.2.3), as a duration of up to one day.

        A date counts from the server's own clock, not from ours.
        """
        value = self.headers.get("retry-after", "").strip()
        if value.isdecimal():
            return (
                min(timedelta(seconds=int(value)), _MAX_RETRY_AFTER) if len(value) <= _MAX_DIGITS else _MAX_RETRY_AFTER
            )
        until, sent = _http_date(value), self.date
        if until is None:
            return None
        return min(max(until - (sent or until), timedelta(0)), _MAX_RETRY_AFTER)

    @property
    def date(self) -> datetime | None:
        """The server's clock when it has sent the response, to the second."""
        return _http_date(self.headers.get("date", ""))

    @property
    def correlation_id(self) -> str | None:
        """The id under which Microsoft's support finds the request."""
        return self.headers.get("x-ms-request-id") or self.headers.get("client-request-id")

    def json_object(self) -> dict[str, Any] | None:
        """The body, or None if it is no JSON object; see ``token_response.decode`` for what is tolerated."""
        return decode(self.body)


def _http_date(value: str) -> datetime | None:
    try:
        parsed = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
