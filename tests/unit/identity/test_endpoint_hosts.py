"""The endpoints of an authority are on its own server, on another name of its cloud, or on a host of the operator."""

import pytest

from worker.domain.errors import InvalidInput
from worker.identity.endpoints import EndpointRefused, check_endpoints, parse_endpoint_hosts

ALLOWED = parse_endpoint_hosts("oauth2.googleapis.com, ::1, Login.Contoso.com.,")


def is_allowed(url: object, authority: str) -> bool:
    try:
        check_endpoints({"token_endpoint": url}, authority=authority, allowed=ALLOWED)
    except EndpointRefused:
        return False
    return True


@pytest.mark.parametrize(
    ("authority", "endpoint"),
    [
        ("https://login.microsoftonline.com/common", "https://login.microsoftonline.com/common/oauth2/v2.0/token"),
        ("https://Login.MicrosoftOnline.com/common", "HTTPS://LOGIN.microsoftonline.COM:443/t"),
        ("https://login.windows.net/t", "https://login.microsoftonline.com/t"),
        ("https://login.microsoft.com/t", "https://login.microsoftonline.com/t"),
        ("https://sts.windows.net/t", "https://login.microsoftonline.com/t"),
        ("https://login.chinacloudapi.cn/t", "https://login.partner.microsoftonline.cn/t"),
        ("https://login.usgovcloudapi.net/t", "https://login.microsoftonline.us/t"),
        ("https://contoso.b2clogin.com/contoso/b2c_1", "https://contoso.b2clogin.com/t?p=b2c_1"),
        ("https://issuer.example:8443/realm", "https://issuer.example:8443/realm/token"),
        ("https://[::2]:8443/realm", "https://[::2]:8443/realm/token"),
        ("https://accounts.google.com/o", "https://oauth2.googleapis.com/token"),
        ("https://accounts.google.com/o", "https://login.contoso.com:8443"),
        ("https://accounts.google.com/o", "https://[::1]/token"),
    ],
)
def test_an_endpoint_is_allowed(authority: str, endpoint: str) -> None:
    assert is_allowed(endpoint, authority)


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://evil.example/t",
        "https://login.microsoftonline.com.evil.example/t",
        "https://evil.login.microsoftonline.com/t",
        "https://microsoftonline.com/t",
        "https://login.microsoftonline.us/t",
        "https://login.partner.microsoftonline.cn/t",
        "https://login.microsoftonline.com:8443/t",
        "https://login.windows.net:8443/t",
        "https://login.microsoftonline.com:443@evil.example/t",
        "https://login.microsoftonline.com\\@evil.example/t",
        "https://login.microsoftonline.com?@evil.example/t",
        "https://login.microsoftonline.com#@evil.example/t",
        "https://user@login.microsoftonline.com/t",
        "https://login.microsoftonline.com%2eevil.example/t",
        "https://login.microsoftonline.com\n.evil.example/t",
        "https://login.microsoftonline.com/t\r\nX: y",
        " https://login.microsoftonline.com/t",
        "https:/login.microsoftonline.com/t",
        "https:///login.microsoftonline.com/t",
        "https://login.m\u0131crosoftonline.com/t",
        "https://login.micro\u017foftonline.com/t",
        "http://login.microsoftonline.com/t",
        "ftp://login.microsoftonline.com/t",
        "login.microsoftonline.com/t",
        "//login.microsoftonline.com/t",
        "https://",
        "",
        7,
        ["https://login.microsoftonline.com/t"],
    ],
)
def test_another_endpoint_is_refused(endpoint: object) -> None:
    assert not is_allowed(endpoint, "https://login.microsoftonline.com/common")


def test_a_host_of_another_cloud_is_no_alias() -> None:
    """A tenant of a national cloud has its own authority."""
    assert not is_allowed("https://login.microsoftonline.com/t", "https://login.microsoftonline.us/common")


def test_an_operator_adds_hosts() -> None:
    assert {"oauth2.googleapis.com", "::1", "login.contoso.com"} == ALLOWED
    assert parse_endpoint_hosts("") == frozenset()


@pytest.mark.parametrize("setting", ["a..b", "https://login.contoso.com", "login.contoso.com:443", "a b"])
def test_a_malformed_host_of_the_operator_is_an_error(setting: str) -> None:
    with pytest.raises(InvalidInput, match="must be host names"):
        parse_endpoint_hosts(setting)
