"""Everything that can go wrong between us and the token endpoint is a Transient, and says which."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import trustme

from tests.e2e.installation import wait_for
from tests.integration.identity.asking import ask, opened
from tests.integration.identity.verbatim import Reply, Verbatim, answer, granted
from worker.devkit.emulator import EmulatorServer, Hang, Reset
from worker.domain.outcome import Outcome, Refreshed, Scope, Transient
from worker.domain.secret import Secret
from worker.identity import Identity

_SILENCE = 15.0  # seconds the product waits for a byte
_CONNECT = 3.0  # seconds it waits for a connection


def _no_way(code: str) -> Transient:
    """Of all that may be wrong, the way to Microsoft is: that is no news about account, app or platform."""
    return Transient(code=code, scope=Scope.NETWORK)


def test_a_refused_connection_is_transient(says: Verbatim) -> None:
    """The platform is down, the account is not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with opened(f"https://localhost:{port}/common", says.ca_bundle) as identity:
        assert ask(identity) == _no_way("connect_failed")


def test_a_name_that_does_not_resolve_is_transient(says: Verbatim) -> None:
    """A resolver that is away is the most common outage of all; .invalid is reserved for this (RFC 6761)."""
    with opened("https://login.invalid/common", says.ca_bundle) as identity:
        assert ask(identity) == _no_way("dns")


def test_a_certificate_of_a_stranger_is_refused(says: Verbatim, tmp_path: Path) -> None:
    """Whoever could stand in for the platform would be handed the client secret and every refresh token."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")

    with opened(says.authority, tmp_path / "other.pem") as identity:
        assert ask(identity) == _no_way("tls")
    assert says.asked == []


def test_a_certificate_for_another_name_is_refused(says: Verbatim) -> None:
    """Trusting the authority is not enough: the name must be the one that was asked for."""
    with opened(f"https://127.0.0.1:{says.port}/common", says.ca_bundle) as identity:
        assert ask(identity) == _no_way("tls")
    assert says.asked == []


@pytest.mark.parametrize("after", [False, True], ids=["before the grant", "after the grant"])
def test_a_reset_connection_is_transient_and_asked_once(server: EmulatorServer, after: bool) -> None:
    """Nobody knows whether the grant was made; asking again at once would be a guess at Microsoft's expense."""
    grant = server.emulator.enrol("ann@contoso.com")
    server.emulator.add_fault(Reset(after=after))

    with opened(server.authority, server.ca_bundle) as identity:
        assert ask(identity, grant.refresh_token) == _no_way("connection_lost")

    assert server.emulator.statistics().requests == 1


@pytest.mark.parametrize("after", [False, True], ids=["before the grant", "after the grant"])
def test_a_kept_connection_that_is_reset_is_asked_once_too(server: EmulatorServer, after: bool) -> None:
    """There libcurl would send the question again by itself, whether it had arrived or not."""
    first, second = (server.emulator.enrol(f"{name}@contoso.com").refresh_token for name in ("ann", "bob"))

    with opened(server.authority, server.ca_bundle) as identity:
        assert isinstance(ask(identity, first), Refreshed)
        server.emulator.add_fault(Reset(after=after))
        assert ask(identity, second) == _no_way("connection_lost")

    assert server.emulator.statistics().requests == 2


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(answer(200, granted())[:-9], id="in the body"),
        pytest.param(answer(200, granted(), {"Content-Length": "99999"}), id="before the promised length"),
        pytest.param(b"", id="before the first byte"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="not HTTP at all"),
        pytest.param(
            answer(200, b"", {"Transfer-Encoding": "chunked"}).replace(b"Content-Length: 0\r\n", b"") + b"fff\r\n{",
            id="in a chunk",
        ),
    ],
)
def test_an_answer_cut_short_is_no_answer(says: Verbatim, identity: Identity, cut: bytes) -> None:
    """Half a token must not pass for one, and the next question must not read the other half."""
    says.token = Reply(cut, close=True)
    assert ask(identity) == _no_way("connection_lost")

    says.token = Reply(answer(200, granted()))
    assert isinstance(ask(identity), Refreshed)


def test_an_answer_cut_short_in_its_header_is_no_answer(says: Verbatim, identity: Identity) -> None:
    """The HTTP library lets that pass for an answer without a body."""
    says.token = Reply(answer(200, granted())[:30], close=True)

    assert isinstance(ask(identity), Transient)


def test_more_bytes_than_promised_are_not_taken_for_the_next_answer(says: Verbatim, identity: Identity) -> None:
    """On a connection that is kept, what is left over belongs to nobody."""
    stray = answer(200, granted(access_token="somebody-elses"))
    says.token = Reply(answer(503, b"") + stray)
    assert ask(identity) == Transient(code="http_503", scope=Scope.SERVICE)

    says.token = Reply(answer(200, granted(access_token="mine")))
    outcome = ask(identity)

    assert isinstance(outcome, Refreshed)
    assert outcome.access_token == Secret("mine")


@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_of_megabytes_is_not_read_to_its_end(says: Verbatim, identity: Identity, status: int) -> None:
    """A hostile or broken server must not fill the worker's memory, nor its words condemn the account."""
    body = json.dumps({"error": "invalid_grant", "access_token": "a", "padding": "x" * (1 << 20)}).encode()
    says.token = Reply(answer(status, body))
    assert isinstance(ask(identity), Transient)

    says.token = Reply(answer(200, granted()))
    assert isinstance(ask(identity), Refreshed)


def test_an_answer_just_below_a_megabyte_counts(says: Verbatim, identity: Identity) -> None:
    """The bound is far above any real answer; below it nothing is thrown away."""
    says.token = Reply(answer(200, granted(padding="x" * 1_000_000)))

    assert isinstance(ask(identity), Refreshed)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(says: Verbatim, identity: Identity, status: int) -> None:
    """It would carry the client secret and the refresh token wherever it points."""
    elsewhere = f"{says.base_url}/elsewhere/oauth2/v2.0/token"
    says.token = Reply(answer(status, b"", {"Location": elsewhere}))

    assert ask(identity) == Transient(code=f"http_{status}", scope=Scope.SERVICE)
    assert [asked.path for asked in says.posts()] == ["/common/oauth2/v2.0/token"]


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_in_the_environment_is_ignored(
    says: Verbatim, identity: Identity, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What some shell exports must not decide through whose hands the tokens go."""
    monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert isinstance(ask(identity), Refreshed)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_certificates_in_the_environment_are_ignored(
    says: Verbatim, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """The bundle that was configured is the one that counts."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    monkeypatch.setenv(name, str(says.ca_bundle))
    with opened(says.authority, tmp_path / "other.pem") as distrustful:
        assert ask(distrustful) == _no_way("tls")

    monkeypatch.setenv(name, str(tmp_path / "other.pem"))
    with opened(says.authority, says.ca_bundle) as identity:
        assert isinstance(ask(identity), Refreshed)


def test_a_connection_the_server_has_closed_meanwhile_is_replaced(says: Verbatim, identity: Identity) -> None:
    """Idle connections die in silence; the account whose turn it is must not pay for that.

    libcurl looks at a kept connection again only after a second.
    """
    says.token = Reply(answer(200, granted()), close=True)

    for _ in range(3):
        assert isinstance(ask(identity), Refreshed)
        wait_for(lambda: says.closed == len(says.posts()), about="the connection to end")
        time.sleep(1.1)


def test_nothing_hangs_for_longer_than_its_patience(server: EmulatorServer, says: Verbatim) -> None:
    """A batch is as slow as its slowest question; one that never ends would outlive every lease.

    All kinds of silence at once, because each takes its whole patience.
    """
    with ExitStack() as undo:
        questions = [
            (_hanging(undo, server, after=False), _SILENCE, "timeout"),
            (_hanging(undo, server, after=True), _SILENCE, "timeout"),
            (_stalled(undo, says), _SILENCE, "timeout"),
            (_unheard(undo, says, accept=True), _CONNECT, "connect_timeout"),
            (_unheard(undo, says, accept=False), _CONNECT, "connect_timeout"),
        ]
        with ThreadPoolExecutor(len(questions)) as pool:
            asked = [(pool.submit(_timed, ask_it), patience, code) for ask_it, patience, code in questions]
            for future, patience, code in asked:
                outcome, seconds = future.result()
                assert outcome == _no_way(code)
                assert patience - 0.5 < seconds < patience + 10
    granted_after = server.emulator.statistics()
    assert (granted_after.requests, granted_after.successes) == (2, 1)


def _timed(ask_it: Callable[[], Outcome]) -> tuple[Outcome, float]:
    began = time.monotonic()
    return ask_it(), time.monotonic() - began


def _hanging(undo: ExitStack, server: EmulatorServer, *, after: bool) -> Callable[[], Outcome]:
    """The platform has heard the question and says nothing."""
    grant = server.emulator.enrol(f"{after}@contoso.com".lower())
    server.emulator.add_fault(Hang(60, after=after), grant.email)
    identity = undo.enter_context(opened(server.authority, server.ca_bundle))
    return lambda: ask(identity, grant.refresh_token)


def _stalled(undo: ExitStack, says: Verbatim) -> Callable[[], Outcome]:
    """The platform stops in the middle of its answer."""
    says.token = Reply(answer(200, granted())[:-9])
    identity = undo.enter_context(opened(says.authority, says.ca_bundle))
    return lambda: ask(identity)


def _unheard(undo: ExitStack, says: Verbatim, *, accept: bool) -> Callable[[], Outcome]:
    """Something listens but does not speak TLS, or its queue of connections is full."""
    port = undo.enter_context(_deaf(accept=accept))
    identity = undo.enter_context(opened(f"https://127.0.0.1:{port}/common", says.ca_bundle))
    return lambda: ask(identity)


@contextmanager
def _deaf(*, accept: bool) -> Iterator[int]:
    with ExitStack() as undo:
        listener = undo.enter_context(closing(socket.create_server(("127.0.0.1", 0), backlog=64 if accept else 0)))
        for _ in range(0 if accept else 4):
            filler = undo.enter_context(closing(socket.socket()))
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
