"""Responses and errors of the transport once the metadata are known."""

import time

import pytest

from tests.integration.identity.identities import open_identity, refresh
from tests.integration.identity.scripted_server import RawResponse, ScriptedServer, http_response, token_body
from worker.devkit.emulator import EmulatorServer
from worker.domain.outcome import Refreshed, Scope, Transient
from worker.identity import Identity


def test_a_platform_that_goes_down_is_transient(server: EmulatorServer) -> None:
    """The kept-alive connection is gone as well."""
    token = server.emulator.enrol("ann@contoso.com").refresh_token
    with open_identity(server.authority, server.ca_bundle) as identity:
        assert isinstance(refresh(identity, token), Refreshed)
        server.stop()
        time.sleep(1.1)  # libcurl checks a kept connection again only after a second

        assert refresh(identity, token) == Transient(code="connect_failed", scope=Scope.NETWORK)
        server.start()

        assert isinstance(refresh(identity, token), Refreshed)


@pytest.mark.parametrize(
    ("host", "code"), [("127.0.0.1", "tls"), ("login.invalid", "dns")], ids=["of another name", "unknown"]
)
def test_a_token_endpoint_on_another_host_needs_a_valid_certificate(
    scripted: ScriptedServer, host: str, code: str
) -> None:
    """A host that is allowed must have a certificate for its own name."""
    scripted.publish(token_endpoint=f"https://{host}:{scripted.port}/common/oauth2/v2.0/token")

    with open_identity(scripted.authority, scripted.ca_bundle, endpoint_hosts=[host]) as identity:
        assert refresh(identity) == Transient(code=code, scope=Scope.NETWORK)
    assert scripted.posts() == []


def test_a_chunked_response_is_read(scripted: ScriptedServer, identity: Identity) -> None:
    """Any proxy on the way may send one."""
    body = token_body()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    scripted.token = RawResponse(head + chunks)

    for _ in range(2):
        assert isinstance(refresh(identity), Refreshed)


def test_an_informational_response_is_skipped(scripted: ScriptedServer, identity: Identity) -> None:
    """Any number of them may come before the final one (RFC 9110 15.2)."""
    scripted.token = RawResponse(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + http_response(200, token_body()))

    for _ in range(2):
        assert isinstance(refresh(identity), Refreshed)


def test_a_head_without_end_is_an_error(scripted: ScriptedServer, identity: Identity) -> None:
    """It must not fill the memory."""
    scripted.token = RawResponse(http_response(200, token_body(), {f"X-{number}": "x" * 1000 for number in range(400)}))

    assert refresh(identity) == Transient(code="connection_lost", scope=Scope.NETWORK)


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate"])
def test_a_body_that_does_not_decompress_is_malformed(
    scripted: ScriptedServer, identity: Identity, encoding: str
) -> None:
    """The worker has not asked for compression, and half a body would be worse than none."""
    scripted.token = RawResponse(http_response(200, token_body(), {"Content-Encoding": encoding}))

    assert refresh(identity) == Transient(code="malformed_answer", scope=Scope.SERVICE)
