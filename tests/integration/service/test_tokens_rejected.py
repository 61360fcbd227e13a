"""When no new token can be had: the old one for as long as it lives, and after that the reason."""

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
    """As the mail product does when a mailbox goes back to a password."""
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
    """The application shows a sign-in button, waits, or calls an administrator: it must know which."""
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
    """However often the application reads, the pace is the schedule's: Microsoft punishes loops."""
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
    """A refresh that fails early does not take away what still works."""
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
def test_an_operator_s_refresh_asks_and_tells_the_outcome(
    installation: Installation, fault: Fault, error: type[AccountError], reason: str
) -> None:
    """Whatever the schedule says; and a token that still lives must not hide that it failed."""
    installation.sign_in(ANN)
    installation.emulator.add_fault(fault)

    for asked in (1, 2):
        with pytest.raises(error, match=reason):
            _refresh(installation)
        assert installation.requests == asked


def test_a_back_off_says_how_long_and_then_ends(installation: Installation) -> None:
    """The application can tell its user when to come back."""
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


def test_an_account_that_needs_its_user_passes_the_challenge_on(installation: Installation) -> None:
    """Without the claims the sign-in that follows would be refused for the same reason."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS50076", claims='{"access_token":{}}'))

    with pytest.raises(NeedsUser) as raised:
        _read(installation)

    assert (raised.value.reason, raised.value.claims) == ("AADSTS50076", '{"access_token":{}}')


@pytest.mark.parametrize("aside", [_pause, _leave_oauth])
def test_an_account_set_aside_lives_on_its_last_token(
    installation: Installation, aside: Callable[[Installation], None]
) -> None:
    """Nobody asks for it any more, and what it has is used up."""
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
def test_an_account_set_aside_is_not_asked_about(
    installation: Installation, aside: Callable[[Installation], None], ask: Callable[[Installation], AccessToken]
) -> None:
    """Neither by a consumer nor by an operator who has forgotten."""
    installation.sign_in(ANN, due=True)
    aside(installation)
    installation.clock.advance(days=2)

    with pytest.raises(AccountInactive):
        ask(installation)

    assert installation.refresh_due() == {"claimed": 0}
    assert installation.requests == 0


def test_a_disconnected_account_gives_no_token_at_once(installation: Installation) -> None:
    """Its user has withdrawn: the last token may live, and is not handed out."""
    installation.sign_in(ANN)

    _disconnect(installation)

    with pytest.raises(AccountInactive, match="disconnected"):
        _read(installation)


def test_an_account_that_needs_its_user_is_looked_at_daily(installation: Installation) -> None:
    """Administrators undo what they did, and then nobody has to sign in."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS53003"), times=1)
    with pytest.raises(BlockedByAdmin):
        _read(installation)

    installation.clock.now += DAY * 1.1

    assert installation.refresh_due() == {"claimed": 1, "refreshed": 1}
    assert _read(installation).version == 2


def test_a_token_sealed_under_a_lost_key_names_its_account(installation: Installation) -> None:
    """One account of many is in trouble: a message without its name would be a day's search."""
    installation.sign_in(ANN)
    stranger = installation.another_process(encryption_keys=SecretStr(generate_key("other")))

    with pytest.raises(UnreadableSecret, match=ANN) as raised:
        stranger.tokens.get(ANN)

    assert "'k1'" in str(raised.value)
    assert installation.requests == 0
    assert _read(installation).email == ANN


def test_a_refresh_token_sealed_under_a_lost_key_names_its_account(installation: Installation) -> None:
    """Likewise where there is no access token yet; the account is fine, it is this process that lacks something."""
    installation.sign_in(ANN, due=True)
    before = installation.account().refresh_token
    stranger = installation.another_process(encryption_keys=SecretStr(generate_key("other")))

    with pytest.raises(UnreadableSecret, match=ANN):
        stranger.tokens.get(ANN)

    assert (installation.account().status, installation.account().refresh_token) == (Status.ACTIVE, before)
    assert installation.requests == 0
    installation.clock.advance(minutes=1)
    assert _read(installation).version == 2


def test_an_answer_without_a_lifetime_that_suits_is_still_an_answer(installation: Installation) -> None:
    """Microsoft's newest is what there is, even if it is short of the wish: no loop, no error."""
    installation.sign_in(ANN, due=True, lifetime=timedelta(seconds=2))

    token = installation.services.tokens.get(ANN, min_ttl=HOUR)

    assert token.ttl(installation.clock()) == timedelta(seconds=2)
    assert installation.requests == 1


def test_a_token_that_is_dead_on_arrival_is_not_served(installation: Installation) -> None:
    """The platform was slower than its token: what a caller gets is live or an error."""
    installation.sign_in(ANN, due=True, lifetime=timedelta(seconds=2))

    with installation.in_flight(lambda: _read(installation)) as reading:
        installation.clock.advance(seconds=3)

    with pytest.raises(Unavailable):
        reading.result()
