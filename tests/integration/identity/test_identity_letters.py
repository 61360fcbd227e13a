"""MSAL writes a token request once for many refresh tokens: what is sent is what it would have written for each."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from uuid import UUID

import msal
import trustme
from freezegun import freeze_time

from tests.factories import NOW
from tests.integration.identity.asking import opened
from tests.integration.identity.verbatim import Verbatim
from worker import clock
from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET
from worker.domain.secret import Secret
from worker.identity import Identity, Question
from worker.identity.http import TokenEndpoint
from worker.identity.registration import ClientCredential
from worker.identity.wire import Wire

_SCOPE = "https://outlook.office.com/IMAP.AccessAsUser.All"
_TOKENS = ("first-token", "token with a space & ümlaut=", "third+token%2Bthem~")


def _question(refresh_token: str) -> Question:
    return Question(refresh_token=Secret(refresh_token), client="default", authority=None, scopes=())


def _ask(identity: Identity, questions: Iterator[tuple[int, Question]]) -> None:
    for _group in identity.refresh_all(questions, now=clock.utcnow):
        pass


def _lasting(headers: Mapping[str, str]) -> dict[str, str]:
    """Without what differs from question to question, or must not be told at all."""
    own = ("client-request-id", "x-client-last-telemetry")
    return {name.lower(): value for name, value in headers.items() if name.lower() not in own}


def test_every_question_is_as_msal_would_ask_it(says: Verbatim) -> None:
    """Form and headers, but for the correlation id: each has one of its own."""
    with opened(says.authority, says.ca_bundle) as identity:
        _ask(identity, iter([(number, _question(token)) for number, token in enumerate(_TOKENS)]))
    ours = sorted(says.posts(), key=lambda asked: _TOKENS.index(asked.form["refresh_token"]))
    wire = Wire(ca_bundle=says.ca_bundle, connections=1)
    app = msal.ConfidentialClientApplication(
        DEFAULT_CLIENT_ID,
        client_credential=DEFAULT_CLIENT_SECRET,
        authority=says.authority,
        http_client=TokenEndpoint(wire),
        instance_discovery=False,
    )
    for token in _TOKENS:
        app.acquire_token_by_refresh_token(token, [_SCOPE])
    wire.close()
    msals = says.posts()[len(_TOKENS) :]

    assert [asked.form for asked in ours] == [asked.form for asked in msals]
    assert [_lasting(asked.headers) for asked in ours] == [_lasting(asked.headers) for asked in msals]
    assert [asked.path for asked in ours] == [asked.path for asked in msals]
    ids = {UUID(asked.headers["client-request-id"]) for asked in ours}
    assert len(ids) == len(_TOKENS)
    assert {each.version for each in ids} == {4}


def test_a_question_proves_the_registration_anew_before_the_proof_is_too_old(says: Verbatim) -> None:
    """A batch may wait for its turn for minutes, and an assertion is good for ten."""
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    pem = authority.private_key_pem.bytes() + authority.cert_pem.bytes()
    credentials = (ClientCredential(certificate=Secret(pem.decode())),)
    with (
        opened(says.authority, says.ca_bundle, connections=1, credentials=credentials) as identity,
        freeze_time(NOW) as frozen,
    ):

        def questions() -> Iterator[tuple[int, Question]]:
            yield 1, _question("first")
            yield 2, _question("second")
            frozen.tick(timedelta(minutes=10))
            yield 3, _question("third")

        _ask(identity, questions())

    first, second, third = [asked.form["client_assertion"] for asked in says.posts()]
    assert first == second
    assert first != third
