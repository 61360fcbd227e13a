"""Hosts of which the first addresses drop packets, as in a network with broken IPv6."""

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.integration.mail.doors import DOORS, IMAP, Door
from tests.integration.mail.exchange import Exchange, serving
from tests.integration.mail.sources import HeldSource
from worker.domain.account import MailServers
from worker.mail import MailUnavailable
from worker.mail.connect import connect, connect_async
from worker.mail.deadline import Deadline

ANN = "ann@contoso.com"
Address = tuple[str, int]


@contextmanager
def dead_address() -> Iterator[Address]:
    """A listener whose queue is full, so that the kernel accepts no further connection."""
    with ExitStack() as held, socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        for _ in range(8):
            client = held.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        time.sleep(0.1)
        yield listener.getsockname()


@contextmanager
def refusing_address() -> Iterator[Address]:
    """A bound socket that does not listen."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()


class Names:
    """Overrides the system's resolver for "localhost", which has one address here, with addresses that come first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.first: list[Address] = []
        self.only = False
        self._ask = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self.getaddrinfo)

    def getaddrinfo(self, host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        found: list[Any] = list(self._ask(host, port, *args, **options))
        first = [(_family(address), *found[0][1:4], address) for address in self.first]
        return first + found * (not self.only)


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


@pytest.fixture(name="names")
def _names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.fixture(name="dead")
def _dead() -> Iterator[Address]:
    with dead_address() as address:
        yield address


@pytest.mark.parametrize("door", DOORS)
def test_a_login_goes_past_dead_addresses(
    door: Door, names: Names, dead: Address, script_tls: ssl.SSLContext, script_trust: ssl.SSLContext
) -> None:
    exchange = Exchange()
    with serving(exchange, script_tls) as servers, refusing_address() as refusing:
        names.first = [dead, refusing, dead, dead]
        begun = time.monotonic()
        door(HeldSource(servers), ANN, ssl_context=script_trust, timeout=10)
        assert time.monotonic() - begun < 3
    assert len(exchange.tokens) == 1


@pytest.fixture(name="ipv6")
def _ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 on this machine: {error}")


@pytest.mark.usefixtures("ipv6")
@pytest.mark.parametrize("door", IMAP)
def test_a_mailbox_that_is_not_connected_over_ipv6_is_tried_over_ipv4(
    door: Door, names: Names, script_tls: ssl.SSLContext, script_trust: ssl.SSLContext
) -> None:
    """Exchange answers so over IPv6 only (davmail#261)."""
    bad, good = Exchange(trouble="BAD User is authenticated but not connected."), Exchange()
    with serving(bad, script_tls, "::1") as over_ipv6, serving(good, script_tls) as servers:
        names.first = [("::1", over_ipv6.imap_port)]
        door(HeldSource(servers), ANN, ssl_context=script_trust)
    assert (len(bad.tokens), len(good.tokens)) == (1, 1)


@pytest.mark.parametrize("door", DOORS)
def test_dead_addresses_alone_end_at_the_time_limit(door: Door, names: Names, dead: Address) -> None:
    names.first, names.only = [dead], True
    nowhere = MailServers(imap_host="localhost", pop_host="localhost", smtp_host="localhost")
    begun = time.monotonic()
    with pytest.raises(MailUnavailable, match="no complete answer within 1 seconds"):
        door(HeldSource(nowhere), ANN, timeout=1)
    assert time.monotonic() - begun < 2


def test_every_socket_that_lost_is_closed(names: Names, dead: Address) -> None:
    """An open one would warn, which fails the test."""
    with socket.create_server(("127.0.0.1", 0)) as live:
        names.first = [dead, dead]
        port = live.getsockname()[1]
        connect("localhost", port, Deadline(5)).close()
        asyncio.run(connect_async("localhost", port)).close()


def test_the_last_failure_is_raised() -> None:
    with refusing_address() as (_, port):
        with pytest.raises(ConnectionRefusedError):
            connect("localhost", port, Deadline(5))
        with pytest.raises(ConnectionRefusedError):
            asyncio.run(connect_async("localhost", port))
