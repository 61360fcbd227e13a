"""Names of hosts, as operators and documents write them."""

import ipaddress
import re

_NAME_LIMIT = 253  # characters, RFC 1035 section 2.3.4
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def normal_host(host: str) -> str:
    """The form to compare. Case and a final dot do not matter."""
    return host.lower().removesuffix(".")


def is_host_name(host: str) -> bool:
    """Whether ``host`` can be looked up at all: a DNS name, international ones included, or an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        try:
            name = normal_host(host).encode("idna").decode()
        except UnicodeError:
            return False
        return len(name) <= _NAME_LIMIT and all(map(_LABEL.fullmatch, name.split(".")))
    return True


def parse_hosts(names: str) -> frozenset[str] | None:
    """The normal form of host names with commas between them. None if one of them is no host name."""
    hosts = frozenset(normal_host(name.strip()) for name in names.split(",") if name.strip())
    return hosts if all(map(is_host_name, hosts)) else None
