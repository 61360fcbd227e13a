"""The cookbook's Graph helper runs against a server that answers as Graph does."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import urllib3

from tests.integration.mail.recipes import module
from tests.integration.mail.sources import HeldSource
from worker.domain.account import MailServers
from worker.domain.errors import NeedsUser
from worker.mail import LoginRejected, MailboxRefused, MailUnavailable

ANN = "ann@contoso.com"
CLAIMS = '{"access_token":{"nbf":{"essential":true,"value":"1700000000"}}}'
CHALLENGE = f'Bearer realm="", error="insufficient_claims", claims="{base64.b64encode(CLAIMS.encode()).decode()}"'
Reply = tuple[int, dict[str, str], Any]
GOOD: Reply = (200, {}, {"value": [{"subject": "Lunch?"}]})


def error(status: int, code: str, message: str = "", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, {"error": {"code": code, "message": message}}


class Graph(ThreadingHTTPServer):
    """Sends one reply per request. The last one repeats."""

    daemon_threads = True

    def __init__(self, replies: list[Reply]) -> None:
        self.replies, self.tokens = replies, list[str]()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Graph

    def do_GET(self) -> None:
        replies = self.server.replies
        status, headers, document = replies.pop(0) if len(replies) > 1 else replies[0]
        self.server.tokens.append(self.headers["Authorization"].removeprefix("Bearer "))
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        if status == 0:
            threading.Event().wait(2)
            return
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running(replies: list[Reply]) -> Iterator[Graph]:
    with Graph(replies) as graph:
        thread = threading.Thread(target=graph.serve_forever, args=(0.05,))
        thread.start()
        yield graph
        graph.shutdown()
        thread.join()


Call = Callable[..., tuple[Any, Graph, HeldSource]]


@pytest.fixture(name="call")
def _call() -> Call:
    def call(*replies: Reply, timeout: float = 10) -> tuple[Any, Graph, HeldSource]:
        recipe = module("graph")
        recipe.__dict__["TIMEOUT"] = urllib3.Timeout(timeout)
        source = HeldSource(MailServers())
        with running(list(replies)) as graph, urllib3.PoolManager() as http:
            try:
                found = recipe.newest(source, ANN, http, base=f"http://127.0.0.1:{graph.server_address[1]}")
            except Exception as raised:  # noqa: BLE001 - the test examines it
                found = raised
        return found, graph, source

    return call


def test_the_newest_messages_are_listed(call: Call) -> None:
    found, graph, source = call(GOOD)
    assert (found, len(graph.tokens), source.reported) == ([{"subject": "Lunch?"}], 1, [])


def test_a_rejected_token_is_refreshed_once(call: Call) -> None:
    found, graph, source = call(error(401, "InvalidAuthenticationToken"), GOOD)
    assert (found, source.reported) == ([{"subject": "Lunch?"}], [(ANN, 1)])
    assert len(set(graph.tokens)) == 2


def test_a_second_rejection_is_final(call: Call) -> None:
    found, graph, source = call(error(401, "InvalidAuthenticationToken", "Lifetime validation failed."))
    assert isinstance(found, LoginRejected)
    assert found.said == "InvalidAuthenticationToken Lifetime validation failed."
    assert (len(graph.tokens), source.reported) == (2, [(ANN, 1)])


def test_a_claims_challenge_is_for_the_user(call: Call) -> None:
    """The sign-in passes this value on as claims_challenge."""
    found, _, _ = call(error(401, "InvalidAuthenticationToken", WWW_Authenticate=CHALLENGE))
    assert isinstance(found, NeedsUser)
    assert found.claims == CLAIMS


@pytest.mark.parametrize(
    "reply",
    [
        error(403, "ErrorAccessDenied", "Access is denied."),
        error(404, "MailboxNotEnabledForRESTAPI", "The mailbox is either inactive, soft-deleted, or on-premise."),
    ],
)
def test_a_closed_mailbox_raises_its_error(call: Call, reply: Reply) -> None:
    found, graph, source = call(reply)
    assert isinstance(found, MailboxRefused)
    assert (len(graph.tokens), source.reported) == (1, [])


@pytest.mark.parametrize(
    ("reply", "retry_after"),
    [
        (error(429, "ApplicationThrottled", "over its MailboxConcurrency limit", Retry_After="300"), 300),
        (error(429, "ApplicationThrottled", "over its MailboxConcurrency limit"), None),
        (error(503, "ErrorServerBusy", Retry_After="2"), 2),
        ((502, {}, b"<html>Bad gateway</html>"), None),
        ((503, {}, b""), None),
    ],
)
def test_a_throttle_is_raised_and_not_waited_for(call: Call, reply: Reply, retry_after: int | None) -> None:
    found, graph, source = call(reply)
    assert isinstance(found, MailUnavailable)
    assert found.retry_after == (timedelta(seconds=retry_after) if retry_after else None)
    assert (len(graph.tokens), source.reported) == (1, [])


def test_a_silent_server_runs_into_the_timeout(call: Call) -> None:
    found, graph, _ = call((0, {}, b""), timeout=0.5)
    assert isinstance(found, MailUnavailable)
    assert len(graph.tokens) == 1
