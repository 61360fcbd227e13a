"""Nothing remains between two requests: no token, no cookie, no data of another account."""

import gc
import secrets
import sys
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import jwt
import pytest

from tests.integration.identity.identities import open_identity, refresh
from tests.integration.identity.scripted_server import RawResponse, ScriptedServer, http_response, token_body
from worker.devkit.emulator import EmulatorServer, oauth_error
from worker.domain.outcome import ReauthRequired, Refreshed
from worker.identity import Identity

_THREADS = 50
_REFRESHES = 4
_KINDS = frozenset({str, bytes, bytearray, dict, list, tuple, set, frozenset})


def _holders(needle: str) -> list[str]:
    """The kinds of objects in this process that hold a text with the needle in it."""
    gc.collect()
    wanted, found = needle.encode(), []
    seen, waiting = set[int](), list[object](gc.get_objects())
    own = {id(waiting), id(seen)}
    while waiting:
        holder = waiting.pop()
        if id(holder) in seen or id(holder) in own:
            continue
        seen.add(id(holder))
        for held in gc.get_referents(holder):
            if type(held) not in _KINDS:  # not isinstance, which would resolve a lazy proxy
                continue
            if isinstance(held, str | bytes | bytearray):
                text = held.encode("utf-8", "replace") if isinstance(held, str) else held
                if held is not needle and held is not wanted and wanted in text:
                    found.append(type(holder).__qualname__)
            elif not gc.is_tracked(held):
                waiting.append(held)
    return found


def _respond_with_token(scripted: ScriptedServer, *, status: int) -> str:
    """Script a token that the server does not hold in the clear itself, and return it backwards."""
    token, client_info = secrets.token_urlsafe(40), urlsafe_b64encode(b'{"uid": "1", "utid": "2"}').decode()
    packed = zlib.compress(token_body(access_token=token, refresh_token=token, client_info=client_info))
    scripted.token = RawResponse(http_response(status, packed, {"Content-Encoding": "deflate"}))
    return token[::-1]


@pytest.mark.parametrize("status", [200, 400, 503])
def test_no_token_stays_in_memory(scripted: ScriptedServer, identity: Identity, status: int) -> None:
    """A dump of the process's memory shows at most the tokens under way, not those of earlier refreshes."""
    reversed_token = _respond_with_token(scripted, status=status)
    outcome = refresh(identity)
    assert isinstance(outcome, Refreshed) is (status == 200)
    if isinstance(outcome, Refreshed):
        assert outcome.access_token.reveal() == reversed_token[::-1]

    del outcome

    assert _holders(reversed_token[::-1]) == []


def test_no_spent_refresh_token_stays_in_memory(scripted: ScriptedServer, identity: Identity) -> None:
    """Microsoft does not revoke it, so it is as valuable as the new one."""
    spent = secrets.token_urlsafe(40)[::-1]
    refresh(identity, spent[::-1])
    assert _holders(spent[::-1])  # the server's record, which also proves that the search finds it
    scripted.requests.clear()

    assert _holders(spent[::-1]) == []


@pytest.fixture(name="hectic")
def _hectic() -> Iterator[None]:
    """Switch threads after microseconds instead of milliseconds."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.000_005)
    yield
    sys.setswitchinterval(usual)


def test_threads_that_share_an_identity_get_their_own_responses(server: EmulatorServer, hectic: None) -> None:
    """Mixing up the tokens of mailboxes would be the worst defect of this program."""
    emails = [f"user{number}@contoso.com" for number in range(_THREADS)]
    for email in emails[::5]:
        server.emulator.add_fault(oauth_error("AADSTS50173"), email)
    start = Barrier(_THREADS)

    with (
        open_identity(server.authority, server.ca_bundle, connections=8) as identity,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        wrong = list(pool.map(lambda email: _confused(server, identity, email, start), emails))

    assert [email for email in wrong if email] == []


def _confused(server: EmulatorServer, identity: Identity, email: str, start: Barrier) -> str | None:
    """The e-mail if any of its responses belonged to another account."""
    token = server.emulator.enrol(email).refresh_token
    start.wait(30)
    for _ in range(_REFRESHES):
        outcome = refresh(identity, token)
        if isinstance(outcome, ReauthRequired):
            if int(email[4:].partition("@")[0]) % 5:
                return email
            continue
        if not isinstance(outcome, Refreshed) or outcome.refresh_token is None:
            return email
        claims = jwt.decode(outcome.access_token.reveal(), options={"verify_signature": False})
        token = outcome.refresh_token.reveal()
        if claims["upn"] != email:
            return email
    return None if server.emulator.newest_refresh_token(email) == token else email


def test_cookies_are_not_kept(scripted: ScriptedServer, identity: Identity) -> None:
    """Entra sets some. Kept, they would connect the accounts of all users."""
    scripted.token = RawResponse(http_response(200, token_body(), {"Set-Cookie": "fpc=abc; path=/; secure; HttpOnly"}))
    for _ in range(2):
        refresh(identity)

    assert not any("cookie" in name.lower() for request in scripted.requests for name in request.headers)


def test_one_account_s_failure_is_not_reported_in_another_s_request(
    scripted: ScriptedServer, identity: Identity
) -> None:
    """MSAL reports the last failure, with its correlation id, in a header of its next request."""
    scripted.token = RawResponse(http_response(400, b'{"error": "invalid_grant", "suberror": "bad_token"}'))
    for _ in range(2):
        refresh(identity)

    first, second = scripted.posts()
    assert "x-client-last-telemetry" not in {name.lower() for name in second.headers}
    assert first.headers["client-request-id"] != second.headers["client-request-id"]
