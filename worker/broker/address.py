"""The arguments of connections of Celery and kombu, which do not learn all of them from a URL."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from redis.credentials import CredentialProvider

from worker.domain.redis_url import RedisAddress, parse
from worker.domain.url_parts import AMQP_SCHEMES
from worker.redis_login import PasswordFile

_AMQP_TLS = {"ssl_ca_certs": "ca_certs", "ssl_certfile": "certfile", "ssl_keyfile": "keyfile"}
_SENTINEL_TIMEOUT = 1.0  # seconds; the next sentinel is asked after it


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """The arguments of a connection of kombu: ``url``, ``ssl`` (with Celery ``broker_use_ssl``) and the others."""

    url: str = field(repr=False)
    ssl: dict[str, Any] | bool = False
    transport_options: Mapping[str, Any] = field(default_factory=dict)
    credential_provider: CredentialProvider | None = None


def broker_address(url: str, *, prefix: str = "") -> BrokerAddress:
    """``prefix`` begins the names of all queues in Redis. A broker of another kind names them as they are."""
    if url.startswith(AMQP_SCHEMES):
        return _amqp(url)
    address = parse(url)
    options: dict[str, Any] = {"global_keyprefix": prefix}
    if address.master:
        options |= {"master_name": address.master, "sentinel_kwargs": _of_sentinels(address)}
    provider = PasswordFile(address.username, address.password_file) if address.password_file else None
    return BrokerAddress(
        url=_kombu_url(address), ssl=_tls(address), transport_options=options, credential_provider=provider
    )


def _amqp(url: str) -> BrokerAddress:
    parts = urlsplit(url)
    if parts.scheme != "amqps":
        return BrokerAddress(url=url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    # py-amqp verifies the chain by itself, and compares the host name only if it is given one.
    tls = {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": parts.hostname}
    tls |= {_AMQP_TLS[name]: value for name, value in pairs if name in _AMQP_TLS}
    others = urlencode([pair for pair in pairs if not pair[0].startswith("ssl_")])
    return BrokerAddress(url=urlunsplit(parts._replace(query=others)), ssl=tls)


def _kombu_url(address: RedisAddress) -> str:
    names = [address.username or "", address.password or ""] if address.password_file is None else ["", ""]
    login = f"{quote(names[0], safe='')}:{quote(names[1], safe='')}@" if any(names) else ""
    if address.socket:
        return f"redis+socket://{login}{quote(address.socket)}?virtual_host={address.database}"
    scheme = "sentinel" if address.master else "redis" if address.tls is None else "rediss"
    hosts = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in address.hosts)
    return ";".join(f"{scheme}://{login}{host}/{address.database}" for host in hosts)


def _tls(address: RedisAddress) -> dict[str, Any] | bool:
    if address.tls is None:
        return False
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True, **address.tls}


def _of_sentinels(address: RedisAddress) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_timeout": _SENTINEL_TIMEOUT,
        "socket_connect_timeout": _SENTINEL_TIMEOUT,
        "username": address.sentinel_username,
        "password": address.sentinel_password,
    }
    return options if address.tls is None else options | {"ssl": True, **address.tls}
