"""Signing in on another device, and what becomes of a grant that was given to the app as a public client."""

import re

import pytest

from tests.factories import NOW, make_registration
from tests.integration.identity.asking import ask, opened
from tests.integration.identity.verbatim import Reply, Verbatim, answer
from worker.devkit.emulator import EmulatorServer, oauth_error
from worker.domain.errors import ConfigurationError
from worker.domain.outcome import Misconfigured, Refreshed, Scope
from worker.identity import Identity
from worker.identity.client import SignedIn

ANN = "ann@contoso.com"


def sign_in(server: EmulatorServer, identity: Identity) -> SignedIn:
    """Ann enters the code on another device, and says who she is."""
    flow = identity.start_device_flow("default")
    code = re.search(r"enter the code (\S+)\.", flow.message)
    assert code
    server.emulator.approve_device(code[1], ANN)
    return flow.wait(lambda: NOW)


def test_a_code_entered_elsewhere_signs_a_mailbox_in(server: EmulatorServer) -> None:
    """What comes of it is a grant like any other: it is refreshed."""
    with opened(server.authority, server.ca_bundle) as identity:
        signed_in = sign_in(server, identity)

        assert signed_in.username == ANN
        assert isinstance(ask(identity, signed_in.refresh_token.reveal()), Refreshed)


def test_a_grant_of_a_public_client_is_asked_for_without_the_credential(server: EmulatorServer) -> None:
    """Microsoft refuses a secret there; one account of that kind must not look like a wrong registration."""
    with opened(server.authority, server.ca_bundle) as identity:
        signed_in = sign_in(server, identity)
        server.emulator.add_fault(oauth_error("700025"), ANN, times=1)

        assert isinstance(ask(identity, signed_in.refresh_token.reveal()), Refreshed)

    assert server.emulator.statistics().failures == 1


def test_if_that_is_refused_too_it_is_about_this_account(server: EmulatorServer) -> None:
    """The breaker of the registration stays closed."""
    grant = server.emulator.enrol(ANN)
    server.emulator.add_fault(oauth_error("700025"), ANN)

    with opened(server.authority, server.ca_bundle) as identity:
        outcome = ask(identity, grant.refresh_token)

    assert isinstance(outcome, Misconfigured)
    assert (outcome.code, outcome.scope) == ("AADSTS700025", Scope.TENANT)


@pytest.mark.parametrize("reply", [answer(503, b""), answer(200, b"<html>")], ids=["503", "HTML"])
def test_a_sign_in_that_cannot_begin_is_one_sentence(says: Verbatim, identity: Identity, reply: bytes) -> None:
    """Whoever sits before it is no developer."""
    says.discovery = Reply(reply)

    with pytest.raises(ConfigurationError, match="device code flow cannot be started"):
        identity.start_device_flow(make_registration().name)
