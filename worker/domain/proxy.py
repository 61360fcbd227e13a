"""The HTTP proxy between this process and the internet, and the hosts that are reached without it."""

import ipaddress
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from worker.domain.errors import InvalidInput
from worker.domain.token import Secret

LOOPBACK = ("localhost", "127.0.0.0/8", "::1")

_FORM = "must look like http://proxy.example:3128 or http://user:password@proxy.example:3128"
_NOT_OF_URLS = re.compile(r"[^!-~]")
_DEFAULT_PORT = 3128


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy that takes CONNECT. ``credentials``: ``user:password``."""

    host: str
    port: int
    credentials: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyRules:
    """Which hosts are reached through the proxy: all but the exceptions, in the form of NO_PROXY."""

    proxy: Proxy | None = None
    exceptions: tuple[str, ...] = ()

    def for_host(self, host: str) -> Proxy | None:
        """The proxy to the host; None: connect directly."""
        name = host.lower().strip("[]")
        return None if any(_matches(exception, name) for exception in self.exceptions) else self.proxy


DIRECT = ProxyRules()


def parse_proxy(url: str) -> Proxy:
    """The proxy of a URL. Raises InvalidInput, which does not quote it, because it may hold a password."""
    with suppress(ValueError):  # a port that is no number
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname and parts.path in {"", "/"} and not _NOT_OF_URLS.search(url):
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
            credentials = Secret(f"{user}:{password}") if user else None
            if ":" not in user and f"{user}{password}".isprintable():
                return Proxy(host=parts.hostname, port=parts.port or _DEFAULT_PORT, credentials=credentials)
    raise InvalidInput(_FORM)


def parse_exceptions(text: str) -> Sequence[str]:
    """The entries of NO_PROXY: names (with their subdomains), addresses, networks, or ``*``."""
    return [entry.removeprefix("*.").removeprefix(".") for entry in text.lower().replace(",", " ").split()]


def _matches(exception: str, host: str) -> bool:
    if exception in {"*", host} or host.endswith(f".{exception}"):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(exception, strict=False)
    except ValueError:
        return False
