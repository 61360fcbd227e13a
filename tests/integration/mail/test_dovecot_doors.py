"""Every way into a mailbox, at a real server that lets the identity server check the token."""

from datetime import timedelta
from ssl import SSLContext

import pytest

from tests.integration.mail.doors import DOORS, Door
from tests.integration.mail.office import ANN, HOUR, Office
from tests.integration.mail.sources import ServiceSource
from worker.clock import utcnow
from worker.devkit.emulator import EmulatorServer
from worker.mail import LoginRejected, MailUnavailable

pytestmark = pytest.mark.parametrize("door", DOORS)


def test_a_live_token_opens_the_mailbox(office: Office, source: ServiceSource, trust: SSLContext, door: Door) -> None:
    office.sign_in()
    reconnect_by = door(source, ANN, ssl_context=trust)
    left = reconnect_by - utcnow()
    assert HOUR - timedelta(minutes=2) < left < HOUR - timedelta(minutes=1) + timedelta(seconds=1)
    assert (office.refreshes(), source.reported) == (0, [])


def test_an_expired_token_is_rejected_and_refreshed_once(
    office: Office, source: ServiceSource, trust: SSLContext, door: Door
) -> None:
    """The worker's expiry of the token is an hour ahead."""
    office.sign_in(lifetime=timedelta(0), believed=HOUR)
    rejected = office.services.accounts.find(ANN).version
    door(source, ANN, ssl_context=trust)
    assert (office.refreshes(), source.reported) == (1, [rejected])
    door(source, ANN, ssl_context=trust)
    assert office.refreshes() == 1


def test_a_second_rejection_is_final(office: Office, source: ServiceSource, trust: SSLContext, door: Door) -> None:
    """The token is another user's, which no refresh changes. The second error contains the server's words, too."""
    office.sign_in()
    for logins in (1, 2):
        with pytest.raises(LoginRejected, match=r"(?i)authentication failed") as caught:
            door(source, ANN, ssl_context=trust, user="bob@contoso.com")
        assert (caught.value.code, caught.value.email) == ("token_refused", ANN)
        assert (office.refreshes(), len(source.reported)) == (1, logins)


def test_a_server_that_cannot_check_tokens_causes_no_refresh(
    office: Office, source: ServiceSource, server: EmulatorServer, trust: SSLContext, door: Door
) -> None:
    office.sign_in()
    server.stop()
    try:
        with pytest.raises(MailUnavailable, match="Temporary authentication failure"):
            door(source, ANN, ssl_context=trust)
    finally:
        server.start()
    assert source.reported == []


def test_an_unknown_certificate_is_rejected_before_the_token_is_sent(
    office: Office, source: ServiceSource, door: Door
) -> None:
    office.sign_in()
    with pytest.raises(MailUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        door(source, ANN)
    assert source.reported == []
