"""WORKER_PROXY, HTTPS_PROXY and NO_PROXY."""

import pytest

from tests.unit.settings.environment import Environment, complaint
from worker.settings import Settings, load


@pytest.fixture(name="variables")
def _variables(environment: Environment) -> Environment:
    for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        environment.delenv(name, raising=False)
    return environment


def _host(name: str) -> str | None:
    proxy = load(Settings).proxies.for_host(name)
    return proxy.host if proxy else None


def test_the_worker_s_own_proxy_wins(variables: Environment) -> None:
    assert _host("a.example") is None
    variables.setenv("HTTPS_PROXY", "http://theirs:1")
    assert _host("a.example") == "theirs"
    variables.setenv("WORKER_PROXY", "http://ours:1")
    assert (_host("a.example"), _host("localhost")) == ("ours", "ours")
    variables.setenv("NO_PROXY", "a.example")
    assert (_host("a.example"), _host("b.example")) == (None, "ours")
    variables.setenv("WORKER_PROXY", "none")
    assert _host("b.example") is None


def test_the_proxy_of_the_machine_is_not_for_the_machine(variables: Environment) -> None:
    """It is set for every program. A demo's servers are not behind it."""
    variables.setenv("https_proxy", "proxy:3128")

    assert (_host("b.example"), _host("localhost"), _host("127.0.0.1")) == ("proxy", None, None)


@pytest.mark.parametrize("name", ["WORKER_PROXY", "HTTPS_PROXY"])
def test_a_proxy_that_cannot_be_used_stops_the_start(variables: Environment, name: str) -> None:
    variables.setenv(name, "socks5://erin:hunter2@proxy:1080")

    assert complaint().startswith(f"{name} must look like http://proxy.example:3128")
    assert "none" in complaint()
