"""Which hosts are reached through which proxy."""

import pytest

from worker.domain.errors import InvalidInput
from worker.domain.proxy import LOOPBACK, ProxyRules, parse_exceptions, parse_proxy

_PROXY = parse_proxy("http://erin:hunter%402@proxy.example")


def test_a_proxy_is_read_from_its_url() -> None:
    assert (_PROXY.host, _PROXY.port) == ("proxy.example", 3128)
    assert _PROXY.credentials
    assert _PROXY.credentials.reveal() == "erin:hunter@2"
    assert "hunter" not in repr(_PROXY)
    assert parse_proxy("http://[::1]:8080/").host == "::1"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "proxy:3128",
        "https://hunter2@proxy",
        "socks5://proxy:1080",
        "http://:3128",
        "http://hunter2:port@h:x",
        "http://a b",
        "http://proxy/path",
        "http://a%3Ab:hunter2@proxy",
        "http://a:hunter2%0d%0aX@proxy",
    ],
)
def test_what_is_no_proxy_is_rejected_without_being_quoted(url: str) -> None:
    with pytest.raises(InvalidInput, match="must look like http://proxy") as caught:
        parse_proxy(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("exceptions", "host", "is_direct"),
    [
        ("", "login.microsoftonline.com", False),
        ("*", "login.microsoftonline.com", True),
        ("example.com", "EXAMPLE.com", True),
        (".example.com, other", "mail.example.com", True),
        ("*.example.com", "mail.example.com", True),
        ("example.com", "notexample.com", False),
        ("10.0.0.0/8 ::1", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "ten.example", False),
        ("::1", "[::1]", True),
        (" ".join(LOOPBACK), "127.0.0.1", True),
        (" ".join(LOOPBACK), "localhost", True),
    ],
)
def test_exceptions_are_those_of_no_proxy(exceptions: str, host: str, *, is_direct: bool) -> None:
    rules = ProxyRules(proxy=_PROXY, exceptions=tuple(parse_exceptions(exceptions)))

    assert (rules.for_host(host) is None) == is_direct
