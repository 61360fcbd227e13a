"""The fields of an account in an import, checked one by one. No error quotes a value, because it may be a token."""

import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime

from worker.domain.account import DEFAULT_CLIENT, MailServers, NewAccount, normalize_email
from worker.domain.errors import InvalidInput
from worker.domain.host_names import is_host_name
from worker.domain.labels import parse_labels
from worker.domain.token import Secret, is_visible

_SERVERS = tuple(field.name for field in fields(MailServers) if field.name != "login_name")
_FIELDS = frozenset(
    {
        "email",
        "refresh_token",
        "access_token",
        "expires_at",
        "obtained_at",
        "use_oauth",
        "client",
        "authority",
        "scopes",
        "login_name",
        "labels",
        *_SERVERS,
    }
)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,29}")  # tokens and client secrets are longer
_NAMES_SHOWN = 5
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")
_MILLISECONDS_FROM = 10**11  # as seconds this is the year 5138
_TRUTHS = {"true": True, "t": True, "1": True, "yes": True, "false": False, "f": False, "0": False, "no": False}
_LAST_PORT = 65_535
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def field_name(name: str) -> str:
    """The name in snake case, as fields are written here; other products have it in camel case."""
    return _CAPITAL.sub("_", name.strip()).lower()


def parse_account(given: Mapping[str, object]) -> NewAccount:
    """An account with a grant, or one with a password (``use_oauth`` false). Raises InvalidInput."""
    data = _named(given)
    if unknown := set(data) - _FIELDS:
        raise InvalidInput(f"unknown fields: {_names(unknown)}; known are {', '.join(sorted(_FIELDS))}")
    use_oauth = _truth(data, "use_oauth")
    if use_oauth is False and (data.get("refresh_token") or data.get("access_token")):
        raise InvalidInput("use_oauth is false, so the account can have no token")
    access_token = _text(data, "access_token")
    return NewAccount(
        email=_email(_required(data, "email")),
        refresh_token=None if use_oauth is False else Secret(_required(data, "refresh_token")),
        client=_text(data, "client") or DEFAULT_CLIENT,
        authority=_text(data, "authority"),
        scopes=_words(data, "scopes") or (),
        access_token=Secret(access_token) if access_token else None,
        expires_at=_instant(data, "expires_at"),
        obtained_at=_instant(data, "obtained_at"),
        mail=_servers(data),
        login_name=_text(data, "login_name"),
        labels=_labels(data),
    )


def _named(given: Mapping[str, object]) -> dict[str, object]:
    data: dict[str, object] = {}
    for name, value in given.items():
        if (known := field_name(name)) in data:
            raise InvalidInput(f"{known} is given twice" if known in _FIELDS else "a field is given twice")
        data[known if known in _FIELDS else name] = value
    return data


def _names(unknown: set[str]) -> str:
    """A few of the names, in quotes. One that does not look like a name is left out, because it may be a token."""
    shown = sorted(repr(name) for name in unknown if _NAME.fullmatch(name))[:_NAMES_SHOWN]
    left_out = len(unknown) - len(shown)
    return ", ".join(shown + ([f"{left_out} more" if shown else str(left_out)] if left_out else []))


def _required(data: Mapping[str, object], name: str) -> str:
    value = _text(data, name)
    if not value:
        msg = f"{name} is missing"
        raise InvalidInput(msg)
    return value


def _text(data: Mapping[str, object], name: str) -> str | None:
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


def _labels(data: Mapping[str, object]) -> tuple[str, ...] | None:
    words = _words(data, "labels")
    return None if words is None else parse_labels(words)


def _words(data: Mapping[str, object], name: str) -> tuple[str, ...] | None:
    """A list of strings, or one string with spaces as in OAuth 2.0."""
    value = data.get(name)
    words = value.split() if isinstance(value, str) else value
    if words is None:
        return None
    if not isinstance(words, list) or not all(isinstance(word, str) and is_visible(word) for word in words):
        msg = f"{name} must be a list of strings or one string with spaces"
        raise InvalidInput(msg)
    return tuple(words)


def _servers(data: Mapping[str, object]) -> MailServers | None:
    """The mail servers that are given, and Microsoft's in the place of the others; None if none is given."""
    given = {name: _port(data, name) if name.endswith("_port") else _host(data, name) for name in _SERVERS}
    named = {name: value for name, value in given.items() if value is not None}
    return MailServers(**named) if named else None  # type: ignore[arg-type]  # by name: str for hosts, int for ports


def _host(data: Mapping[str, object], name: str) -> str | None:
    host = _text(data, name)
    if host is not None and not is_host_name(host):
        msg = f"{name} is no host name"
        raise InvalidInput(msg)
    return host


def _port(data: Mapping[str, object], name: str) -> int | None:
    value = data.get(name)
    if value is None or value == "":
        return None
    port = int(value) if isinstance(value, str) and _NUMBER.fullmatch(value) and value.isdigit() else value
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port <= _LAST_PORT:
        msg = f"{name} must be a number from 1 to {_LAST_PORT}"
        raise InvalidInput(msg)
    return port


def _truth(data: Mapping[str, object], name: str) -> bool | None:
    value = data.get(name)
    if value is None or value == "":
        return None
    known = _TRUTHS.get(str(value).lower()) if isinstance(value, bool | int | str) else None
    if known is None:
        msg = f"{name} must be true or false"
        raise InvalidInput(msg)
    return known


def _instant(data: Mapping[str, object], name: str) -> datetime | None:
    """Seconds or milliseconds since the epoch, or ISO 8601 with an offset."""
    value = data.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000 if value >= _MILLISECONDS_FROM else value, UTC)
        if isinstance(value, str) and (parsed := datetime.fromisoformat(value)).tzinfo:
            return parsed
    except (ValueError, OverflowError, OSError):
        pass
    msg = f"{name} must be seconds or milliseconds since the epoch, or ISO 8601 with an offset such as Z"
    raise InvalidInput(msg)
