"""The body of a token response, off the wire: lenient, because it may hold the only copy of a new refresh token."""

import json
import re
from typing import Any

# A value that JSON's grammar delimits by itself. Only these four: a refusal is read whole or not at all.
_MEMBER = re.compile(
    r'"(access_token|refresh_token|expires_in|refresh_in)"\s*:\s*(?:"((?:[^"\\]|\\.){1,65536})"|([0-9]{1,12})\b)'
)


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


_DECODER = json.JSONDecoder(object_pairs_hook=_merged, strict=False)


def _salvaged(text: str) -> dict[str, Any] | None:
    found = {name: _unescaped(quoted) if quoted else int(number) for name, quoted, number in _MEMBER.findall(text)}
    return found if found.get("access_token") else None


def _unescaped(quoted: str) -> str | None:
    try:
        text = _DECODER.decode(f'"{quoted}"')
    except ValueError:
        return None
    return text if isinstance(text, str) else None
