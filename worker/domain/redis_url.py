"""Where Redis is, in all forms of a URL that cache and broker accept."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from worker.domain.errors import InvalidInput
from worker.domain.url_parts import check_port, check_shape

FORM = "must look like redis://:password@host:6379/0, rediss:// for TLS, unix://, or sentinel://one,two/0?master=name"
_TCP = {"redis": False, "valkey": False, "rediss": True, "valkeys": True}  # and whether they use TLS
_SENTINEL = {"sentinel": False, "sentinels": True, "redis+sentinel": False, "rediss+sentinel": True}
_SOCKETS = ("unix", "redis+socket")
_CLUSTER = ("redis+cluster", "rediss+cluster", "redis-cluster", "rediss-cluster")
_PORT, _SENTINEL_PORT = 6379, 26_379
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TRUE = ("true", "1", "yes")

CLUSTER_REFUSED = (
    "leads to a Redis Cluster, which cannot be used: entries and queues are read many at a time, and a cluster keeps"
    " them on different servers; use one primary, with Sentinel or the provider's fail-over"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """One server, a socket, or the sentinels that know the primary. ``tls`` has the names of files of redis-py."""

    hosts: tuple[tuple[str, int], ...] = ()
    socket: str | None = None
    master: str | None = None  # the sentinels' name of the primary
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None  # is read for each new connection, instead of the password
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls: Mapping[str, str] | None = None

    @property
    def place(self) -> str:
        """For people: host and port, the file of the socket, or the sentinels."""
        hosts = ", ".join(f"{host}:{port}" for host, port in self.hosts)
        return self.socket or (f"{self.master} at the sentinels {hosts}" if self.master else hosts)


def parse(url: str) -> RedisAddress:
    """Raises InvalidInput, which names the part of the URL that is wrong and quotes nothing of it."""
    check_shape(url, FORM)
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    login, _, hosts = authority.rpartition("@")
    username, _, password = login.partition(":")
    options = dict(parse_qsl(query, keep_blank_values=True))
    common: dict[str, Any] = {
        "username": unquote(username) or None,
        "password": unquote(password) or None,
        "password_file": options.pop("password_file", None),
    }
    if scheme in _CLUSTER:
        raise InvalidInput(CLUSTER_REFUSED)
    if scheme in _SOCKETS:
        return _socket(unquote(f"{hosts}/{path}"), options, common)
    if scheme in _TCP:
        port, tls = _PORT, _TCP[scheme]
    elif scheme in _SENTINEL:
        port, tls = _SENTINEL_PORT, _SENTINEL[scheme]
        common |= _sentinel(options)
    else:
        raise InvalidInput(f"has an unknown scheme: it {FORM}")
    found = RedisAddress(
        hosts=tuple(_host(host, port) for host in hosts.split(",")),
        database=_database(path),
        tls=_tls(options) if tls else None,
        **common,
    )
    if len(found.hosts) > 1 and not found.master:
        raise InvalidInput("has several hosts: name one primary, or sentinels by sentinel://one,two/0?master=name")
    _check_unknown(options)
    return found


def with_settings(url: str, *, ca_bundle: Path | None, password_file: Path | None) -> str:
    """The URL with the authorities and the file that the settings name, unless it names others. Raises InvalidInput."""
    address = parse(url)
    added = {}
    if ca_bundle and address.tls is not None and "ssl_ca_certs" not in address.tls:
        added["ssl_ca_certs"] = str(ca_bundle)
    if password_file and address.password_file is None:
        added["password_file"] = str(password_file)
    separator = "" if not added else "&" if "?" in url else "?"
    return f"{url}{separator}{urlencode(added, quote_via=quote, safe='/')}"


def _host(text: str, default_port: int) -> tuple[str, int]:
    check_port(text, FORM)
    name, _, port = text.rpartition(":") if not text.endswith("]") and ":" in text else (text, "", "")
    if not name.strip("[]"):
        raise InvalidInput(f"names no host: it {FORM}")
    return unquote(name.strip("[]")), int(port or default_port)


def _database(text: str) -> int:
    if text and not text.isdecimal():
        raise InvalidInput("has no number as its database, behind the last /")
    return int(text or 0)


def _socket(path: str, options: dict[str, str], common: Mapping[str, Any]) -> RedisAddress:
    if not path.startswith("/") or path == "/":
        raise InvalidInput("names no socket: it must look like unix:///run/redis/redis.sock?db=0")
    database = _database(options.pop("db", options.pop("virtual_host", "")))
    _check_unknown(options)
    return RedisAddress(socket=path, database=database, **common)


def _sentinel(options: dict[str, str]) -> dict[str, str | None]:
    master = options.pop("master", None) or options.pop("master_name", None)
    if not master:
        raise InvalidInput("names no primary: sentinel://one,two/0?master=name has its name at the sentinels")
    names = ("sentinel_username", "sentinel_password")
    return {"master": master} | {name: options.pop(name, None) for name in names}


def _tls(options: dict[str, str]) -> dict[str, str]:
    mode = options.pop("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if mode != "required" or options.pop("ssl_check_hostname", "true").lower() not in _TRUE:
        raise InvalidInput(
            "must verify the server's certificate: leave out ssl_cert_reqs and ssl_check_hostname;"
            " ssl_ca_certs=PATH names a private certificate authority"
        )
    return {name: options.pop(name) for name in _TLS_FILES if name in options}


def _check_unknown(options: Mapping[str, str]) -> None:
    if "credential_provider" in options:
        raise InvalidInput("has a credential_provider: name a file with the password, by WORKER_REDIS_PASSWORD_FILE")
    for name in options:
        known = name if name.isidentifier() and name.isascii() and name.islower() else "an unknown name"
        raise InvalidInput(f"has the parameter {known}, which cannot be used here")
