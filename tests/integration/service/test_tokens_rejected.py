"""No new token can be had: callers get the old token while it lives, and after that an error with the reason."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from pydantic import SecretStr

from tests.constants import ANN, DAY, HOUR, MINUTE
from tests.integration.installation import Installation
from worker.devkit.emulator import Fault, RawAnswer, oauth_error
from worker.domain.account import Status, account_id
from worker.domain.errors import (
    AccountError,
    AccountInactive,
    BackingOff,
    BlockedByAdmin,
    ClientMisconfigured,
    NeedsUser,
    Unavailable,
    UnreadableSecret,
)
from worker.domain.token import AccessToken
from worker.vault import generate_key

REFUSALS = [
    pytest.param(oauth_error("AADSTS50173"), NeedsUser, "AADSTS50173", id="reauth_required"),
    pytest.param(oauth_error("AADSTS53003"), BlockedByAdmin, "AADSTS53003", id="blocked"),
    pytest.param(oauth_error("AADSTS7000215"), ClientMisconfigured, "AADSTS7000215", id="misconfigured"),
    pytest.param(oauth_error("AADSTS90055", retry_after=90), BackingOff, "AADSTS90055", id="throttled"),
    pytest.param(RawAnswer(b"", 503), BackingOff, "http_503", id="transient"),
    pytest.param(oauth_error("AADSTS999999"), BackingOff, "AADSTS999999", id="unproven"),
]


def _leave_oauth(installation: Installation) -> None:
    """The mail product does this when a mailbox changes back to a password."""
    installation.query("UPDATE mail_credentials SET use_oauth = false, refresh_due_at = NULL")


def _pause(installation: Installation) -> None:
    installation.services.accounts.pause(ANN)


def _disconnect(installation: Installation) -> None:
    installation.services.accounts.disconnect(ANN)


def _read(installation: Installation) -> AccessToken:
    return installation.services.tokens.get(ANN)


def _refresh(installation: Installation) -> AccessToken:
    return installation.services.on_demand.refresh_now(account_id(ANN))


@pytest.mark.parametrize(("fault", "error", "reason"), REFUSALS)
def test_each_refusal_raises_its_own_error(
    installation: Installation, fault: Fault, error: type[AccountError], reason: str
) -> None:
    """The application shows a sign-in button, waits, or calls an administrator, so it must know the reason."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(fault)

    with pytest.raises(error, match=ANN) as raised:
        _read(installation)

    assert type(raised.value) is error
    assert reason in str(raised.value)
    assert installation.requests == 1


@pytest.mark.parametrize(("fault", "error", "reason"), REFUSALS)
def test_no_request_is_sent_while_a_refusal_stands(
    installation: Installation, fault: Fault, error: type[AccountError], reason: str
) -> None:
    """Only the schedule decides when the next request is sent, because Microsoft punishes loops."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(fault)

    for _ in range(3):
        with pytest.raises(error):
            _read(installation)
        installation.clock.advance(seconds=1)

    assert installation.requests == 1


@pytest.mark.parametrize(("fault", "error", "reason"), REFUSALS)
def test_the_old_token_is_served_while_it_lives(
    installation: Installation, fault: Fault, error: type[AccountError], reason: str
) -> None:
    """A refresh that fails early does not end a token that still works."""
    installation.sign_in(ANN)
    installation.emulator.add_fault(fault)
    installation.clock.advance(minutes=57)

    token = _read(installation)
    assert (token.ttl(installation.clock()), token.version) == (3 * MINUTE, 1)
    assert installation.requests == 1

    installation.clock.advance(minutes=3)
    with pytest.raises((error, BackingOff)):
        _read(installation)


@pytest.mark.parametrize(("fault", "error", "reason"), REFUSALS)
def test_an_operators_refresh_sends_a_request_and_raises_its_failure(
    installation: Installation, fault: Fault, error: type[AccountError], reason: str
) -> None:
    """The request is sent regardless of the schedule, and a live token must not hide the failure."""
    installation.sign_in(ANN)
    installation.emulator.add_fault(fault)

    for requests in (1, 2):
        with pytest.raises(error, match=reason):
            _refresh(installation)
        assert installation.requests == requests


def test_the_error_of_a_back_off_has_its_duration(installation: Installation) -> None:
    """The application can show its user when to try again."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS90055", retry_after=90), times=1)

    with pytest.raises(BackingOff) as first:
        _read(installation)
    installation.clock.advance(seconds=60)
    with pytest.raises(BackingOff) as second:
        _read(installation)
    installation.clock.now += second.value.retry_after

    assert timedelta(seconds=90) <= first.value.retry_after <= timedelta(seconds=99)
    assert second.value.retry_after == first.value.retry_after - timedelta(seconds=60)
    assert _read(installation).ttl(installation.clock()) > timedelta(0)
    assert installation.requests == 2


def test_the_error_has_the_claims_that_the_user_must_satisfy(installation: Installation) -> None:
    """Without the claims the following sign-in would be refused for the same reason."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS50076", claims='{"access_token":{}}'))

    with pytest.raises(NeedsUser) as raised:
        _read(installation)

    assert (raised.value.reason, raised.value.claims) == ("AADSTS50076", '{"access_token":{}}')


@pytest.mark.parametrize("aside", [_pause, _leave_oauth])
def test_an_account_set_aside_is_served_its_last_token(
    installation: Installation, aside: Callable[[Installation], None]
) -> None:
    """No request is sent for it, and its last token is served until it expires."""
    installation.sign_in(ANN)
    aside(installation)

    assert _read(installation).ttl(installation.clock()) == HOUR
    installation.services.redis.flushall()
    installation.clock.advance(minutes=59)
    assert _read(installation).ttl(installation.clock()) == MINUTE
    installation.clock.advance(minutes=1)
    with pytest.raises(AccountInactive, match=r"paused|not using OAuth"):
        _read(installation)

    assert installation.requests == 0


@pytest.mark.parametrize("aside", [_pause, _leave_oauth, _disconnect])
@pytest.mark.parametrize("ask", [_read, _refresh])
def test_no_request_is_sent_for_an_account_set_aside(
    installation: Installation, aside: Callable[[Installation], None], ask: Callable[[Installation], AccessToken]
) -> None:
    """Neither a consumer nor an operator causes a request."""
    installation.sign_in(ANN, due=True)
    aside(installation)
    installation.clock.advance(days=2)

    with pytest.raises(AccountInactive):
        ask(installation)

    assert installation.refresh_due() == {"leased": 0}
    assert installation.requests == 0


def test_a_disconnected_account_has_no_token_at_once(installation: Installation) -> None:
    """Its user has disconnected it, so even a live token is not served."""
    installation.sign_in(ANN)

    _disconnect(installation)

    with pytest.raises(AccountInactive, match="disconnected"):
        _read(installation)


def test_an_account_that_needs_its_user_is_refreshed_daily(installation: Installation) -> None:
    """Administrators may lift a restriction, and then no sign-in is needed."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS53003"), times=1)
    with pytest.raises(BlockedByAdmin):
        _read(installation)

    installation.clock.now += DAY * 1.1

    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}
    assert _read(installation).version == 2


def test_the_error_of_a_token_under_a_lost_key_names_the_account(installation: Installation) -> None:
    """One account of many is affected, so a message without its address would cost a long search."""
    installation.sign_in(ANN)
    stranger = installation.another_process(encryption_keys=SecretStr(generate_key("other")))

    with pytest.raises(UnreadableSecret, match=ANN) as raised:
        stranger.tokens.get(ANN)

    assert "'k1'" in str(raised.value)
    assert installation.requests == 0
    assert _read(installation).email == ANN


def test_the_error_of_a_refresh_token_under_a_lost_key_names_the_account(installation: Installation) -> None:
    """The same holds without an access token. The account is valid, and only this process lacks the key."""
    installation.sign_in(ANN, due=True)
    before = installation.account().refresh_token
    stranger = installation.another_process(encryption_keys=SecretStr(generate_key("other")))

    with pytest.raises(UnreadableSecret, match=ANN):
        stranger.tokens.get(ANN)

    assert (installation.account().status, installation.account().refresh_token) == (Status.ACTIVE, before)
    assert installation.requests == 0
    installation.clock.advance(minutes=1)
    assert _read(installation).version == 2


def test_a_token_with_a_shorter_lifetime_than_required_is_served(installation: Installation) -> None:
    """Microsoft's newest token is served even if its lifetime is below the requirement.

    Neither a loop nor an error follows.
    """
    installation.sign_in(ANN, due=True, lifetime=timedelta(seconds=2))

    token = installation.services.tokens.get(ANN, min_ttl=HOUR)

    assert token.ttl(installation.clock()) == timedelta(seconds=2)
    assert installation.requests == 1


def test_a_token_that_has_expired_on_arrival_is_not_served(installation: Installation) -> None:
    """The response took longer than the token lives. A caller gets a live token or an error."""
    installation.sign_in(ANN, due=True, lifetime=timedelta(seconds=2))

    with installation.in_flight(lambda: _read(installation)) as reading:
        installation.clock.advance(seconds=3)

    with pytest.raises(Unavailable):
        reading.result()
