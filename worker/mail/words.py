"""The words of mail servers, made fit for messages and logs: no token, no control character, not long."""

import logging
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator

_LIMIT = 500  # characters; Exchange's longest known answer has 250
_READ = 4_000  # characters of an answer that are looked at
_PIECE = 8  # characters of a token in a row are masked; fewer occur in ordinary words
_BASE64 = str.maketrans("-_", "+/")  # both alphabets as one
# A JWT with parts of any length, or a run of base64 that is longer than any word, host name or request id.
_OPAQUE = re.compile(r"eyJ[\w-]*(?:\.[\w-]*)+|[\w+/=-]{32,}")
_WORD = re.compile(r"[\w+/=.~-]+")  # of the characters that tokens have
_MASK = "…"
_MASKS = re.compile(r"…(?:\s*…)+")


def shown(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` without the secrets, any piece of them, or what looks like a token; control characters are escaped."""
    read = text[:_READ]
    hidden = _places_of(read, set(_pieces(secrets)))
    masked = _WORD.sub(lambda word: _MASK if hidden & set(range(*word.span())) else word[0], read)
    masked = _MASKS.sub(_MASK, _OPAQUE.sub(_MASK, masked))
    return "".join(each if each.isprintable() else _escaped(each) for each in masked[:_LIMIT])


def spellings(response: str, token: str) -> tuple[str, ...]:
    """A token and the response that holds it, as they are and in base64, with any text before the token there."""
    shifted = [b64encode(b" " * shift + token.encode()).decode() for shift in range(3)]
    return (token, b64encode(response.encode()).decode(), *shifted)


class MaskedLog(logging.Filter):
    """For loggers of libraries that log what they receive: a server may repeat a token."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = shown(record.getMessage()), ()
        return True


def _places_of(text: str, pieces: set[str]) -> set[int]:
    """Where pieces of a token are. Spaces and line ends are no obstacle: a token may be in many short parts."""
    places = [place for word in _WORD.finditer(text) for place in range(*word.span())]
    dense = _plain("".join(text[place] for place in places))
    hidden: set[int] = set()
    for start in range(len(dense) - _PIECE + 1):
        if dense[start : start + _PIECE] in pieces:
            hidden.update(places[start : start + _PIECE])
    return hidden


def _pieces(secrets: Iterable[str]) -> Iterator[str]:
    for secret in map(_plain, secrets):
        yield from (secret[start : start + _PIECE] for start in range(len(secret) - _PIECE + 1))


def _plain(text: str) -> str:
    return text.translate(_BASE64).lower()


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
