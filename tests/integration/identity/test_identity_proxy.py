"""Requests to Microsoft go through the proxy of the settings; its refusals have codes of their own."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.connect_proxy import REFUSAL, ConnectProxy
from tests.factories import make_registration
from tests.integration.identity.identities import refresh
from tests.integration.identity.scripted_server import ScriptedServer
from worker.domain.outcome import Refreshed, Scope, Transient
from worker.domain.proxy import ProxyRules, parse_proxy
from worker.identity import Identity


@contextmanager
def _behind(scripted: ScriptedServer, proxy: str, *exceptions: str) -> Iterator[Identity]:
    rules = ProxyRules(proxy=parse_proxy(proxy), exceptions=exceptions)
    registration = make_registration(authority=scripted.authority)
    identity = Identity([registration], ca_bundle=scripted.ca_bundle, connections=4, proxies=rules)
    try:
        yield identity
    finally:
        identity.close()


def test_discovery_and_tokens_go_through_the_proxy(scripted: ScriptedServer) -> None:
    """The headers of the proxy are not taken for Microsoft's."""
    with ConnectProxy() as proxy, _behind(scripted, proxy.url) as identity:
        assert isinstance(refresh(identity), Refreshed)

        assert set(proxy.targets) == {f"localhost:{scripted.port}"}


def test_the_proxy_gets_its_password(scripted: ScriptedServer) -> None:
    with ConnectProxy(credentials="erin:p:w@d") as proxy:
        url = f"http://erin:p%3Aw%40d@127.0.0.1:{proxy.port}"
        with _behind(scripted, url) as identity:
            assert isinstance(refresh(identity), Refreshed)


@pytest.mark.parametrize("refusal", ["password", "policy"])
def test_a_refusal_of_the_proxy_has_its_own_code(scripted: ScriptedServer, refusal: str) -> None:
    """It is neither Microsoft's nor the account's."""
    refusing = ConnectProxy(credentials="erin:x") if refusal == "password" else ConnectProxy(answer=REFUSAL)
    with refusing as proxy, _behind(scripted, proxy.url) as identity:
        assert refresh(identity) == Transient(code="proxy_refused", scope=Scope.NETWORK)
    assert scripted.requests == []


def test_a_proxy_that_is_down_has_its_own_code(scripted: ScriptedServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with _behind(scripted, f"http://127.0.0.1:{port}") as identity:
        assert refresh(identity) == Transient(code="proxy_unreachable", scope=Scope.NETWORK)
    with _behind(scripted, "http://proxy.invalid:3128") as identity:
        assert refresh(identity) == Transient(code="proxy_unreachable", scope=Scope.NETWORK)


def test_hosts_of_no_proxy_are_reached_directly(scripted: ScriptedServer) -> None:
    with ConnectProxy(answer=REFUSAL) as proxy, _behind(scripted, proxy.url, "localhost") as identity:
        assert isinstance(refresh(identity), Refreshed)

        assert proxy.targets == []
