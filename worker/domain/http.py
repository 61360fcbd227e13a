"""An HTTP response, and how its parts are read. Pure."""

import email.utils
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from worker.domain.token_response import decode

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
        until, sent = _http_date(value), _http_date(self.headers.get("date", ""))
        if until is None:
            return None
        return min(max(until - (sent or until), timedelta(0)), _MAX_RETRY_AFTER)

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
