"""Every failure between the worker and the token endpoint is a Transient with a code of its own."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import trustme

from tests.integration.identity.identities import open_identity, refresh
from tests.integration.identity.scripted_server import RawResponse, ScriptedServer, http_response, token_body
from tests.waiting import wait_for
from worker.devkit.emulator import EmulatorServer, Hang, Reset
from worker.domain.outcome import Outcome, Refreshed, Scope, Transient
from worker.domain.token import Secret
from worker.identity import Identity

_SILENCE = 15.0  # seconds until a response must be complete
_CONNECT = 3.0  # seconds until a connection must be established


def _network_error(code: str) -> Transient:
    """Only the network to Microsoft failed, which says nothing about account, app or platform."""
    return Transient(code=code, scope=Scope.NETWORK)


def test_a_refused_connection_is_transient(scripted: ScriptedServer) -> None:
    """The platform is down, the account is not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with open_identity(f"https://localhost:{port}/common", scripted.ca_bundle) as identity:
        assert refresh(identity) == _network_error("connect_failed")


def test_a_name_that_does_not_resolve_is_transient(scripted: ScriptedServer) -> None:
    """A resolver that is down is the most common outage. ``.invalid`` is reserved for this (RFC 6761)."""
    with open_identity("https://login.invalid/common", scripted.ca_bundle) as identity:
        assert refresh(identity) == _network_error("dns")


def test_a_certificate_of_an_unknown_authority_is_refused(scripted: ScriptedServer, tmp_path: Path) -> None:
    """An impostor of the platform would receive the client secret and every refresh token."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")

    with open_identity(scripted.authority, tmp_path / "other.pem") as identity:
        assert refresh(identity) == _network_error("tls")
    assert scripted.requests == []


def test_a_certificate_for_another_name_is_refused(scripted: ScriptedServer) -> None:
    """A trusted authority is not enough: the certificate must be for the requested name."""
    with open_identity(f"https://127.0.0.1:{scripted.port}/common", scripted.ca_bundle) as identity:
        assert refresh(identity) == _network_error("tls")
    assert scripted.requests == []


@pytest.mark.parametrize("after", [False, True], ids=["before the grant", "after the grant"])
def test_a_request_on_a_connection_that_is_reset_is_sent_once(server: EmulatorServer, after: bool) -> None:
    """Microsoft may have issued new tokens. Sending the request again at once could use the refresh token twice."""
    grant = server.emulator.enrol("ann@contoso.com")
    server.emulator.add_fault(Reset(after=after))

    with open_identity(server.authority, server.ca_bundle) as identity:
        assert refresh(identity, grant.refresh_token) == _network_error("connection_lost")

    assert server.emulator.statistics().requests == 1


@pytest.mark.parametrize("after", [False, True], ids=["before the grant", "after the grant"])
def test_a_request_on_a_kept_connection_that_is_reset_is_sent_once_too(server: EmulatorServer, after: bool) -> None:
    """By default libcurl would send it again, even if the server may have processed it."""
    first, second = (server.emulator.enrol(f"{name}@contoso.com").refresh_token for name in ("ann", "bob"))

    with open_identity(server.authority, server.ca_bundle) as identity:
        assert isinstance(refresh(identity, first), Refreshed)
        server.emulator.add_fault(Reset(after=after))
        assert refresh(identity, second) == _network_error("connection_lost")

    assert server.emulator.statistics().requests == 2


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(http_response(200, token_body())[:-9], id="in the body"),
        pytest.param(http_response(200, token_body(), {"Content-Length": "99999"}), id="before the promised length"),
        pytest.param(b"", id="before the first byte"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="not HTTP at all"),
        pytest.param(
            http_response(200, b"", {"Transfer-Encoding": "chunked"}).replace(b"Content-Length: 0\r\n", b"")
            + b"fff\r\n{",
            id="in a chunk",
        ),
    ],
)
def test_a_response_cut_short_is_an_error(scripted: ScriptedServer, identity: Identity, cut: bytes) -> None:
    """Half a token must not pass for one, and the next request must not read the other half."""
    scripted.token = RawResponse(cut, close=True)
    assert refresh(identity) == _network_error("connection_lost")

    scripted.token = RawResponse(http_response(200, token_body()))
    assert isinstance(refresh(identity), Refreshed)


def test_a_response_cut_short_in_its_header_is_an_error(scripted: ScriptedServer, identity: Identity) -> None:
    """The HTTP library takes it for a response without a body."""
    scripted.token = RawResponse(http_response(200, token_body())[:30], close=True)

    assert isinstance(refresh(identity), Transient)


def test_more_bytes_than_announced_are_not_taken_for_the_next_response(
    scripted: ScriptedServer, identity: Identity
) -> None:
    """Surplus bytes on a kept connection belong to no request."""
    stray = http_response(200, token_body(access_token="another-accounts"))
    scripted.token = RawResponse(http_response(503, b"") + stray)
    assert refresh(identity) == Transient(code="http_503", scope=Scope.SERVICE)

    scripted.token = RawResponse(http_response(200, token_body(access_token="mine")))
    outcome = refresh(identity)

    assert isinstance(outcome, Refreshed)
    assert outcome.access_token == Secret("mine")


@pytest.mark.parametrize("status", [200, 400])
def test_a_response_of_megabytes_is_not_read_to_its_end(
    scripted: ScriptedServer, identity: Identity, status: int
) -> None:
    """A hostile or broken server must neither fill the worker's memory nor condemn the account."""
    body = json.dumps({"error": "invalid_grant", "access_token": "a", "padding": "x" * (1 << 20)}).encode()
    scripted.token = RawResponse(http_response(status, body))
    assert isinstance(refresh(identity), Transient)

    scripted.token = RawResponse(http_response(200, token_body()))
    assert isinstance(refresh(identity), Refreshed)


def test_a_response_just_below_a_megabyte_counts(scripted: ScriptedServer, identity: Identity) -> None:
    """The limit is far above any real response."""
    scripted.token = RawResponse(http_response(200, token_body(padding="x" * 1_000_000)))

    assert isinstance(refresh(identity), Refreshed)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(scripted: ScriptedServer, identity: Identity, status: int) -> None:
    """It would send the client secret and the refresh token to another address."""
    elsewhere = f"{scripted.base_url}/elsewhere/oauth2/v2.0/token"
    scripted.token = RawResponse(http_response(status, b"", {"Location": elsewhere}))

    assert refresh(identity) == Transient(code=f"http_{status}", scope=Scope.SERVICE)
    assert [request.path for request in scripted.posts()] == ["/common/oauth2/v2.0/token"]


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_in_the_environment_is_ignored(
    scripted: ScriptedServer, identity: Identity, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A variable that some shell exports must not decide which host sees the tokens."""
    monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert isinstance(refresh(identity), Refreshed)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_certificates_in_the_environment_are_ignored(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Only the configured bundle counts."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    monkeypatch.setenv(name, str(scripted.ca_bundle))
    with open_identity(scripted.authority, tmp_path / "other.pem") as distrustful:
        assert refresh(distrustful) == _network_error("tls")

    monkeypatch.setenv(name, str(tmp_path / "other.pem"))
    with open_identity(scripted.authority, scripted.ca_bundle) as identity:
        assert isinstance(refresh(identity), Refreshed)


def test_a_connection_the_server_has_closed_meanwhile_is_replaced(scripted: ScriptedServer, identity: Identity) -> None:
    """Idle connections end without notice, which must not fail the next account.

    libcurl examines a kept connection again only after a second.
    """
    scripted.token = RawResponse(http_response(200, token_body()), close=True)

    for _ in range(3):
        assert isinstance(refresh(identity), Refreshed)
        wait_for(lambda: scripted.closed == len(scripted.posts()), about="the connection to end")
        time.sleep(1.1)


def test_no_request_takes_longer_than_its_time_limit(server: EmulatorServer, scripted: ScriptedServer) -> None:
    """A batch is as slow as its slowest request, and one that never ends would outlive every lease.

    All kinds of silence run at once, because each takes its whole time limit.
    """
    with ExitStack() as undo:
        requests = [
            (_hanging(undo, server, after=False), _SILENCE, "timeout"),
            (_hanging(undo, server, after=True), _SILENCE, "timeout"),
            (_stalled(undo, scripted), _SILENCE, "timeout"),
            (_unheard(undo, scripted, accept=True), _CONNECT, "connect_timeout"),
            (_unheard(undo, scripted, accept=False), _CONNECT, "connect_timeout"),
        ]
        with ThreadPoolExecutor(len(requests)) as pool:
            request = [(pool.submit(_timed, send), limit, code) for send, limit, code in requests]
            for future, limit, code in request:
                outcome, seconds = future.result()
                assert outcome == _network_error(code)
                assert limit - 0.5 < seconds < limit + 10
    granted_after = server.emulator.statistics()
    assert (granted_after.requests, granted_after.successes) == (2, 1)


def _timed(send: Callable[[], Outcome]) -> tuple[Outcome, float]:
    began = time.monotonic()
    return send(), time.monotonic() - began


def _hanging(undo: ExitStack, server: EmulatorServer, *, after: bool) -> Callable[[], Outcome]:
    """The platform has received the request and does not respond."""
    grant = server.emulator.enrol(f"{after}@contoso.com".lower())
    server.emulator.add_fault(Hang(60, after=after), grant.email)
    identity = undo.enter_context(open_identity(server.authority, server.ca_bundle))
    return lambda: refresh(identity, grant.refresh_token)


def _stalled(undo: ExitStack, scripted: ScriptedServer) -> Callable[[], Outcome]:
    """The platform stops in the middle of its response."""
    scripted.token = RawResponse(http_response(200, token_body())[:-9])
    identity = undo.enter_context(open_identity(scripted.authority, scripted.ca_bundle))
    return lambda: refresh(identity)


def _unheard(undo: ExitStack, scripted: ScriptedServer, *, accept: bool) -> Callable[[], Outcome]:
    """The port is open but does not speak TLS, or its queue of connections is full."""
    port = undo.enter_context(_deaf(accept=accept))
    identity = undo.enter_context(open_identity(f"https://127.0.0.1:{port}/common", scripted.ca_bundle))
    return lambda: refresh(identity)


@contextmanager
def _deaf(*, accept: bool) -> Iterator[int]:
    with ExitStack() as undo:
        listener = undo.enter_context(closing(socket.create_server(("127.0.0.1", 0), backlog=64 if accept else 0)))
        for _ in range(0 if accept else 4):
            filler = undo.enter_context(closing(socket.socket()))
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
