"""The hosts to which client secrets and refresh tokens are sent.

The OpenID metadata of an authority name the endpoints. A wrong document must not have secrets sent elsewhere.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from worker.domain.errors import InvalidInput
from worker.domain.host_names import normal_host, parse_hosts

#: The names that each cloud of Microsoft has for its login service. Source: the aliases in the response of
#: https://login.microsoftonline.com/common/discovery/instance, where MSAL reads them. The hosts are those of MSAL's
#: list, WELL_KNOWN_AUTHORITY_HOSTS in msal/authority.py; those that are not here have one name only.
_ALIASES = (
    frozenset({"login.microsoftonline.com", "login.microsoft.com", "login.windows.net", "sts.windows.net"}),
    frozenset({"login.partner.microsoftonline.cn", "login.chinacloudapi.cn"}),
    frozenset({"login.microsoftonline.us", "login.usgovcloudapi.net"}),
)
_ENDPOINTS = ("token_endpoint", "device_authorization_endpoint", "authorization_endpoint")
_HTTPS = 443
# Stricter than any parser, so that this module and libcurl find the same host in a URL.
_URL = re.compile(r"https://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?(?:/[!-~]*)?", re.ASCII | re.IGNORECASE)


class EndpointRefused(Exception):
    """The metadata name an endpoint that is not allowed. The message does not repeat the endpoint."""


class _Server(NamedTuple):
    host: str
    port: int


def parse_endpoint_hosts(names: str) -> frozenset[str]:
    """The hosts in ``names``, which commas separate. Raises InvalidInput."""
    hosts = parse_hosts(names)
    if hosts is None:
        raise InvalidInput("must be host names with commas between them, such as oauth2.contoso.com,login.contoso.com")
    return hosts


def check_endpoints(metadata: Mapping[str, Any], *, authority: str, allowed: Collection[str]) -> None:
    """Raises EndpointRefused unless all endpoints are https, and on the authority's server or an allowed host.

    A missing endpoint is not refused. A cloud's names count as one host. An allowed host may have any port.
    """
    for name in _ENDPOINTS:
        url = metadata.get(name)
        if url is not None and not _is_allowed(_server(url), _server(authority), allowed):
            raise EndpointRefused(name)


def _is_allowed(endpoint: _Server | None, authority: _Server | None, allowed: Collection[str]) -> bool:
    if endpoint is None:
        return False
    return endpoint.host in allowed or (authority is not None and endpoint in _names_of(authority))


def _names_of(server: _Server) -> set[_Server]:
    hosts = {server.host}.union(*(cloud for cloud in _ALIASES if server.host in cloud))
    return {_Server(host, server.port) for host in hosts}


def _server(url: object) -> _Server | None:
    """The server of an https URL; None for anything else, and for a URL with a user name."""
    match = _URL.fullmatch(url) if isinstance(url, str) else None
    if match is None:
        return None
    host, port = match.groups()
    return _Server(normal_host(host.strip("[]")), int(port or _HTTPS))
