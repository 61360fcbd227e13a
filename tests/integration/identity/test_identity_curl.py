"""What may come over the wire once the metadata are known, and what it is taken for."""

import json
import time

import pytest

from tests.integration.identity.asking import ask, opened
from tests.integration.identity.verbatim import Reply, Verbatim, answer, granted
from worker.devkit.emulator import EmulatorServer
from worker.domain.outcome import Refreshed, Scope, Transient
from worker.identity import Identity


def _says_token_endpoint(says: Verbatim, url: str) -> None:
    says.discovery = Reply(answer(200, json.dumps(says.document(token_endpoint=url)).encode()))


def test_a_platform_that_goes_away_is_transient(server: EmulatorServer) -> None:
    """The connection of the question before is gone as well."""
    token = server.emulator.enrol("ann@contoso.com").refresh_token
    with opened(server.authority, server.ca_bundle) as identity:
        assert isinstance(ask(identity, token), Refreshed)
        server.stop()
        time.sleep(1.1)  # libcurl looks at a kept connection again only after a second

        assert ask(identity, token) == Transient(code="connect_failed", scope=Scope.NETWORK)
        server.start()

        assert isinstance(ask(identity, token), Refreshed)


@pytest.mark.parametrize(
    ("host", "code"), [("127.0.0.1", "tls"), ("login.invalid", "dns")], ids=["of another name", "unknown"]
)
def test_a_token_endpoint_elsewhere_is_held_to_the_same(
    says: Verbatim, identity: Identity, host: str, code: str
) -> None:
    """The metadata may name any host; its certificate must be its own."""
    _says_token_endpoint(says, f"https://{host}:{says.port}/common/oauth2/v2.0/token")

    assert ask(identity) == Transient(code=code, scope=Scope.NETWORK)
    assert says.posts() == []


def test_an_answer_in_chunks_is_an_answer(says: Verbatim, identity: Identity) -> None:
    """As any proxy in between may send it."""
    body = granted()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    says.token = Reply(head + chunks)

    for _ in range(2):
        assert isinstance(ask(identity), Refreshed)


def test_a_provisional_answer_is_not_the_answer(says: Verbatim, identity: Identity) -> None:
    """RFC 9110 15.2: any number of them may come before."""
    says.token = Reply(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer(200, granted()))

    for _ in range(2):
        assert isinstance(ask(identity), Refreshed)


def test_a_head_without_end_is_no_answer(says: Verbatim, identity: Identity) -> None:
    """It must not fill the memory."""
    says.token = Reply(answer(200, granted(), {f"X-{number}": "x" * 1000 for number in range(400)}))

    assert ask(identity) == Transient(code="connection_lost", scope=Scope.NETWORK)


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate"])
def test_a_packed_answer_that_does_not_unpack_is_odd(says: Verbatim, identity: Identity, encoding: str) -> None:
    """Nobody has asked for it, and half of it would be worse than nothing."""
    says.token = Reply(answer(200, granted(), {"Content-Encoding": encoding}))

    assert ask(identity) == Transient(code="malformed_answer", scope=Scope.SERVICE)
