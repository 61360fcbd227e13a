"""The format of an import: one JSON object per line and account, which every exporter can write."""

import json
from datetime import UTC, datetime
from typing import Any

from worker.domain.account import DEFAULT_CLIENT, Grant, normalize_email
from worker.domain.errors import InvalidInput
from worker.domain.token import Secret, is_visible

_FIELDS = frozenset({"email", "refresh_token", "scopes", "authority", "client", "access_token", "expires_at"})


def parse_grant(line: str) -> Grant:
    """Read one JSON line of an import. Raises InvalidInput naming the field, never its value."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidInput("not a JSON object") from None
    if not isinstance(data, dict):
        raise InvalidInput("not a JSON object")
    unknown = sorted(set(data) - _FIELDS)
    if unknown:
        msg = f"{len(unknown)} unknown field(s); known are {', '.join(sorted(_FIELDS))}"
        raise InvalidInput(msg)
    access_token = _text(data, "access_token")
    return Grant(
        email=_email(_required(data, "email")),
        refresh_token=Secret(_required(data, "refresh_token")),
        client=_text(data, "client") or DEFAULT_CLIENT,
        authority=_text(data, "authority"),
        scopes=_scopes(data.get("scopes")),
        access_token=Secret(access_token) if access_token else None,
        expires_at=_instant(data.get("expires_at")),
    )


def _required(data: dict[str, Any], name: str) -> str:
    value = _text(data, name)
    if not value:
        msg = f"{name} is missing"
        raise InvalidInput(msg)
    return value


def _text(data: dict[str, Any], name: str) -> str | None:
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        msg = f"{name} must be a string"
        raise InvalidInput(msg)
    if value and name != "email" and not is_visible(value):
        msg = f"{name} must be visible ASCII characters"
        raise InvalidInput(msg)
    return value or None


def _email(text: str) -> str:
    """Without repeating it: in a file with its columns mixed up it may be a token."""
    try:
        return normalize_email(text)
    except InvalidInput:
        raise InvalidInput("email is not an e-mail address") from None


def _scopes(value: object) -> tuple[str, ...]:
    """A list of strings, or one string with spaces as in OAuth 2.0."""
    words = value.split() if isinstance(value, str) else value
    if words is None:
        return ()
    if not isinstance(words, list) or not all(isinstance(word, str) and is_visible(word) for word in words):
        raise InvalidInput("scopes must be a list of strings or one string with spaces")
    return tuple(words)


def _instant(value: object) -> datetime | None:
    """Seconds since the epoch, or ISO 8601 with an offset."""
    if value is None:
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str) and (parsed := datetime.fromisoformat(value)).tzinfo:
            return parsed
    except (ValueError, OverflowError, OSError):
        pass
    raise InvalidInput("expires_at must be seconds since the epoch, or ISO 8601 with an offset such as Z")
