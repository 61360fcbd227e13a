"""MSAL writes one token request for many refresh tokens: each request sent is the one that MSAL would have written."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from uuid import UUID

import msal
import trustme
from freezegun import freeze_time

from tests.factories import NOW
from tests.integration.identity.identities import open_identity, token_request
from tests.integration.identity.scripted_server import ScriptedServer
from worker import clock
from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET
from worker.domain.token import Secret
from worker.identity import Identity, TokenRequest
from worker.identity.curl import CurlPool
from worker.identity.msal_transport import MsalTransport
from worker.identity.registration import ClientCredential

_SCOPE = "https://outlook.office.com/IMAP.AccessAsUser.All"
_TOKENS = ("first-token", "token with a space & ümlaut=", "third+token%2Bthem~")


def _refresh_all(identity: Identity, requests: Iterator[tuple[int, TokenRequest]]) -> None:
    for _group in identity.refresh_all(requests, now=clock.utcnow):
        pass


def _lasting(headers: Mapping[str, str]) -> dict[str, str]:
    """Without the headers that differ from request to request or must not be sent."""
    own = ("client-request-id", "x-client-last-telemetry")
    return {name.lower(): value for name, value in headers.items() if name.lower() not in own}


def test_every_request_is_as_msal_would_write_it(scripted: ScriptedServer) -> None:
    """Form and headers are the same. Only the correlation id differs, because each request has its own."""
    with open_identity(scripted.authority, scripted.ca_bundle) as identity:
        _refresh_all(identity, iter([(number, token_request(token)) for number, token in enumerate(_TOKENS)]))
    ours = sorted(scripted.posts(), key=lambda request: _TOKENS.index(request.form["refresh_token"]))
    pool = CurlPool(ca_bundle=scripted.ca_bundle, connections=1)
    app = msal.ConfidentialClientApplication(
        DEFAULT_CLIENT_ID,
        client_credential=DEFAULT_CLIENT_SECRET,
        authority=scripted.authority,
        http_client=MsalTransport(pool, authority=scripted.authority, endpoint_hosts=()),
        instance_discovery=False,
    )
    for token in _TOKENS:
        app.acquire_token_by_refresh_token(token, [_SCOPE])
    pool.close()
    msals = scripted.posts()[len(_TOKENS) :]

    assert [request.form for request in ours] == [request.form for request in msals]
    assert [_lasting(request.headers) for request in ours] == [_lasting(request.headers) for request in msals]
    assert [request.path for request in ours] == [request.path for request in msals]
    ids = {UUID(request.headers["client-request-id"]) for request in ours}
    assert len(ids) == len(_TOKENS)
    assert {each.version for each in ids} == {4}


def test_a_client_assertion_is_replaced_before_it_expires(scripted: ScriptedServer) -> None:
    """A batch may wait for its turn for minutes, and an assertion is valid for ten."""
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    pem = authority.private_key_pem.bytes() + authority.cert_pem.bytes()
    credentials = (ClientCredential(certificate=Secret(pem.decode())),)
    with (
        open_identity(scripted.authority, scripted.ca_bundle, connections=1, credentials=credentials) as identity,
        freeze_time(NOW) as frozen,
    ):

        def requests() -> Iterator[tuple[int, TokenRequest]]:
            yield 1, token_request("first")
            yield 2, token_request("second")
            frozen.tick(timedelta(minutes=10))
            yield 3, token_request("third")

        _refresh_all(identity, requests())

    first, second, third = [request.form["client_assertion"] for request in scripted.posts()]
    assert first == second
    assert first != third
