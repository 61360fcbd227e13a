"""Where to ask is asked first. While that fails nothing is spent, and what it means is still an outcome."""

import json
from pathlib import Path

import pytest

from tests.factories import make_registration
from tests.integration.identity.asking import ask, opened
from tests.integration.identity.verbatim import Reply, Verbatim, answer, verbatim
from worker.devkit.emulator import EmulatorServer
from worker.domain.errors import ConfigurationError
from worker.domain.outcome import Misconfigured, Refreshed, Scope, Transient
from worker.identity import Identity


@pytest.mark.parametrize("status", [400, 403, 404])
def test_metadata_that_is_refused_means_a_wrong_tenant(says: Verbatim, identity: Identity, status: int) -> None:
    """An operator must act; no account is to blame, and none of another tenant."""
    says.discovery = Reply(answer(status, b'{"error": "invalid_tenant"}'))

    assert ask(identity) == Misconfigured(code=f"discovery_http_{status}", scope=Scope.TENANT)
    assert says.posts() == []


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(answer(429, b""), id="429"),
        pytest.param(answer(500, b""), id="500"),
        pytest.param(answer(503, b"<html></html>"), id="503 in HTML"),
        pytest.param(answer(302, b"", {"Location": "https://localhost:9/elsewhere"}), id="a redirect"),
        pytest.param(answer(204, b""), id="204"),
        pytest.param(answer(200, b""), id="nothing"),
        pytest.param(answer(200, b"<html></html>"), id="HTML"),
        pytest.param(answer(200, b"{}"), id="no endpoints"),
        pytest.param(answer(200, b"[]"), id="an array"),
        pytest.param(answer(200, b"null"), id="null"),
        pytest.param(answer(200, b"\xff\xfe"), id="not UTF-8"),
        pytest.param(answer(200, b"[" * 100_000), id="deeper than any parser goes"),
    ],
)
def test_metadata_that_make_no_sense_may_pass(says: Verbatim, identity: Identity, reply: bytes) -> None:
    """A portal or a proxy in the way says nothing about our authority."""
    says.discovery = Reply(reply)

    outcome = ask(identity)

    assert outcome == Transient(code="discovery_failed", scope=Scope.SERVICE)
    assert says.posts() == []


@pytest.mark.parametrize("endpoint", [None, 7, "", "http://localhost/token", "/token", "https://"])
def test_metadata_with_an_unusable_token_endpoint_may_pass(
    says: Verbatim, identity: Identity, endpoint: object
) -> None:
    """Above all nothing is sent to it: over plain HTTP the client secret would be there for all to read."""
    says.discovery = Reply(answer(200, json.dumps(says.document(token_endpoint=endpoint)).encode()))

    assert ask(identity) == Transient(code="discovery_failed", scope=Scope.SERVICE)
    assert says.posts() == []


@pytest.mark.parametrize(
    "reply", [answer(404, b""), answer(500, b""), answer(200, b"{}"), b""], ids=["404", "500", "no endpoints", "cut"]
)
def test_an_authority_that_comes_back_is_used_again(says: Verbatim, identity: Identity, reply: bytes) -> None:
    """A failure of discovery is not remembered: the next account that is due finds out."""
    good = says.discovery
    says.discovery = Reply(reply, close=not reply)
    assert not isinstance(ask(identity), Refreshed)

    says.discovery = good

    assert isinstance(ask(identity), Refreshed)


def test_metadata_are_fetched_once(says: Verbatim, identity: Identity) -> None:
    """Each refresh would cost two requests otherwise, and each outage of the metadata would be ours."""
    for _ in range(3):
        ask(identity)

    assert [asked.method for asked in says.asked] == ["GET", "POST", "POST", "POST"]


def test_an_account_chooses_its_tenant(server: EmulatorServer) -> None:
    """Guests and single-tenant registrations are refreshed where they live."""
    tenant = f"{server.base_url}/contoso.com"
    grant = server.emulator.enrol("ann@contoso.com")

    with opened(server.authority, server.ca_bundle) as identity:
        outcome = ask(identity, grant.refresh_token, authority=tenant)

    assert isinstance(outcome, Refreshed)
    assert server.emulator.statistics().refreshes == 1


def test_the_tenant_is_where_the_question_goes(says: Verbatim, identity: Identity) -> None:
    """Not only the metadata: a token of the wrong tenant opens no mailbox."""
    document = says.document(token_endpoint=f"{says.base_url}/contoso.com/oauth2/v2.0/token")
    says.discovery = Reply(answer(200, json.dumps(document).encode()))

    ask(identity, authority=f"{says.base_url}/contoso.com")

    assert [asked.path.split("/")[1] for asked in says.asked] == ["contoso.com", "contoso.com"]


def test_an_account_does_not_choose_its_host(says: Verbatim, identity: Identity, tmp_path: Path) -> None:
    """The client secret goes to the host: a row in the database must not be able to send it elsewhere."""
    with verbatim(tmp_path) as begin:
        thief = begin()
        for authority in (thief.authority, f"https://localhost:{says.port}@localhost:{thief.port}/common"):
            refused = ask(identity, authority=authority)
            assert refused == Misconfigured(code="authority_refused", scope=Scope.TENANT)

        assert thief.asked == []
    assert says.asked == []


@pytest.mark.parametrize("tenant", ["", "/"])
def test_an_authority_without_a_tenant_is_refused(says: Verbatim, identity: Identity, tenant: str) -> None:
    """MSAL would raise for it; a row must not be able to make a refresh raise."""
    assert ask(identity, authority=says.base_url + tenant) == Misconfigured(
        code="authority_refused", scope=Scope.TENANT
    )


def test_a_registration_nobody_knows_is_our_mistake(says: Verbatim, identity: Identity) -> None:
    """It was renamed or removed while accounts still name it; the platform has refused nothing."""
    assert ask(identity, client="gone") == Misconfigured(code="unknown_client", scope=Scope.TENANT)
    assert says.asked == []


def test_tenants_fail_apart(says: Verbatim, identity: Identity) -> None:
    """One tenant's metadata being away must not keep the others from being refreshed."""
    assert isinstance(ask(identity), Refreshed)
    says.discovery = Reply(answer(500, b""))

    assert ask(identity, authority=f"{says.base_url}/contoso.com") == Transient(
        code="discovery_failed", scope=Scope.SERVICE
    )
    assert isinstance(ask(identity), Refreshed)


@pytest.mark.parametrize(
    "reply",
    [answer(404, b""), answer(503, b""), answer(302, b""), answer(200, b"[]")],
    ids=["404", "503", "a redirect", "an array"],
)
def test_a_diagnosis_says_which_authority_does_not_answer(says: Verbatim, identity: Identity, reply: bytes) -> None:
    """What the operator gets to read is one sentence, never a traceback."""
    identity.check("default")
    says.discovery = Reply(reply)

    with opened(says.authority, says.ca_bundle) as other, pytest.raises(ConfigurationError, match=says.authority):
        other.check("default")


def test_a_plain_openid_issuer_is_asked_without_v2(says: Verbatim) -> None:
    """Microsoft's own metadata are below /v2.0, everybody else's are not."""
    with opened(says.authority, says.ca_bundle, oidc=True) as identity:
        assert isinstance(ask(identity), Refreshed)

    assert says.asked[0].path == "/common/.well-known/openid-configuration"


def test_an_issuer_of_another_host_is_refused(says: Verbatim) -> None:
    """Metadata copied from somewhere else would send our secret there."""
    says.discovery = Reply(answer(200, json.dumps(says.document(issuer="https://login.example")).encode()))

    with opened(says.authority, says.ca_bundle, oidc=True) as identity:
        assert not isinstance(ask(identity), Refreshed)
    assert says.posts() == []


def test_one_registration_does_not_answer_for_another(server: EmulatorServer) -> None:
    """Each account is refreshed by the registration it was consented to."""
    grant = server.emulator.enrol("ann@contoso.com")
    ours = make_registration(authority=server.authority)
    other = make_registration(name="other", authority=server.authority, client_id="unregistered")
    identity = Identity([ours, other], ca_bundle=server.ca_bundle, connections=2)

    outcomes = [ask(identity, grant.refresh_token, client=name) for name in ("other", "default")]

    identity.close()
    assert [type(outcome) for outcome in outcomes] == [Misconfigured, Refreshed]
