"""Which part of a store's URL is wrong. A library's own error would quote the password."""

import re

from worker.domain.errors import InvalidInput

AMQP_SCHEMES = ("amqp://", "amqps://", "pyamqp://")
_PRINTABLE = re.compile(r"[!-~]*")
_NOT_ENCODED = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MAX_PORT = 65_535


def check_shape(url: str, form: str) -> None:
    """Raises InvalidInput for a text that is no URL, or whose password ends it too early. ``form`` is the advice."""
    scheme, separator, rest = url.partition("://")
    if not scheme or not separator or not _PRINTABLE.fullmatch(url):
        raise InvalidInput(f"is no URL: it {form}")
    if "#" in rest:
        raise InvalidInput("has a # in its password: write %23")
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    if "@" in path and "@" not in authority:
        raise InvalidInput("has a / in its password: write %2F")
    if "@" in query and authority and place == authority and "@" not in authority:
        raise InvalidInput("has a ? in its password: write %3F")


def check_encoding(url: str) -> None:
    """Raises InvalidInput for characters that a strict parser takes for something else."""
    authority = re.split("[/?]", url.partition("://")[2])[0]
    if authority.count("@") > 1:
        raise InvalidInput("has an @ in its password: write %40")
    if _NOT_ENCODED.search(url):
        raise InvalidInput("has a % that begins no code: write %25")


def check_port(host: str, form: str) -> None:
    """Raises InvalidInput if ``host`` ends with a colon and no port. ``form`` is the advice."""
    _, colon, port = host.rpartition("]")[2].partition(":")  # an address of IPv6 is in brackets
    if colon and not (port.isdecimal() and 0 < int(port) <= _MAX_PORT):
        raise InvalidInput(f"has no number from 1 to {_MAX_PORT} as its port: it {form}")
