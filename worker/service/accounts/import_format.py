"""Format of a line of an import: one JSON object per account, as every exporter can write it."""

import json
import re
from datetime import UTC, datetime
from typing import Any

from worker.domain.account import DEFAULT_CLIENT, Grant, normalize_email
from worker.domain.errors import InvalidInput
from worker.domain.labels import parse_labels
from worker.domain.token import Secret, is_visible

_FIELDS = frozenset(
    {"email", "refresh_token", "scopes", "authority", "client", "access_token", "expires_at", "login_name", "labels"}
)

_BYTE_ORDER_MARK = "\ufeff"  # some editors write it at the start of a file
_NOT_UTF_8 = re.compile(r"[\udc80-\udcff]")  # a byte that could not be decoded (PEP 383)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,29}")  # tokens and client secrets are longer
_NAMES_SHOWN = 5


def parse_grant(line: str) -> Grant:
    """Read one JSON line of an import. Raises InvalidInput naming the field, never its value."""
    data = _object(line.removeprefix(_BYTE_ORDER_MARK))
    if unknown := set(data) - _FIELDS:
        raise InvalidInput(f"unknown fields: {_names(unknown)}; known are {', '.join(sorted(_FIELDS))}")
    access_token = _text(data, "access_token")
    return Grant(
        email=_email(_required(data, "email")),
        refresh_token=Secret(_required(data, "refresh_token")),
        client=_text(data, "client") or DEFAULT_CLIENT,
        authority=_text(data, "authority"),
        scopes=_words(data, "scopes") or (),
        access_token=Secret(access_token) if access_token else None,
        expires_at=_instant(data.get("expires_at")),
        login_name=_text(data, "login_name"),
        labels=_labels(data),
    )


def _object(line: str) -> dict[str, Any]:
    if _NOT_UTF_8.search(line):
        raise InvalidInput("not UTF-8; save the file in this encoding")
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, dict):
        return data
    if line.lstrip().startswith("["):
        raise InvalidInput("a JSON array; write one object a line, without brackets around and commas between them")
    raise InvalidInput("not a JSON object")


def _names(unknown: set[str]) -> str:
    """A few of the names, in quotes. One that does not look like a name is left out, because it may be a token."""
    shown = sorted(repr(name) for name in unknown if _NAME.fullmatch(name))[:_NAMES_SHOWN]
    left_out = len(unknown) - len(shown)
    return ", ".join(shown + ([f"{left_out} more" if shown else str(left_out)] if left_out else []))


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


def _labels(data: dict[str, Any]) -> tuple[str, ...] | None:
    words = _words(data, "labels")
    return None if words is None else parse_labels(words)


def _words(data: dict[str, Any], name: str) -> tuple[str, ...] | None:
    """A list of strings, or one string with spaces as in OAuth 2.0."""
    value = data.get(name)
    words = value.split() if isinstance(value, str) else value
    if words is None:
        return None
    if not isinstance(words, list) or not all(isinstance(word, str) and is_visible(word) for word in words):
        msg = f"{name} must be a list of strings or one string with spaces"
        raise InvalidInput(msg)
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
