"""When no new token can be had: the old one for as long as it lives, and after that the reason."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from pydantic import SecretStr

from tests.integration.service.house import ANN, DAY, HOUR, MINUTE, House
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


def _leave_oauth(house: House) -> None:
    """As the mail product does when a mailbox goes back to a password."""
    house.query("UPDATE mail_credentials SET use_oauth = false, refresh_due_at = NULL")


def _pause(house: House) -> None:
    house.services.accounts.pause(ANN)


def _disconnect(house: House) -> None:
    house.services.accounts.disconnect(ANN)


def _read(house: House) -> AccessToken:
    return house.services.tokens.get(ANN)


def _refresh(house: House) -> AccessToken:
    return house.services.on_demand.refresh(account_id(ANN))


@pytest.mark.parametrize(("fault", "error", "reason"), REFUSALS)
def test_a_refusal_is_raised_as_what_it_is(house: House, fault: Fault, error: type[AccountError], reason: str) -> None:
    """The application shows a sign-in button, waits, or calls an administrator: it must know which."""
    house.enrol(ANN)
    house.emulator.add_fault(fault)

    with pytest.raises(error, match=ANN) as raised:
        _read(house)

    assert type(raised.value) is error
    assert reason in str(raised.value)
    assert house.asked() == 1


@pytest.mark.parametrize(("fault", "error", "reason"), REFUSALS)
def test_while_a_refusal_stands_nobody_asks_again(
    house: House, fault: Fault, error: type[AccountError], reason: str
) -> None:
    """However often the application reads, the pace is the schedule's: Microsoft punishes loops."""
    house.enrol(ANN)
    house.emulator.add_fault(fault)

    for _ in range(3):
        with pytest.raises(error):
            _read(house)
        house.clock.advance(seconds=1)

    assert house.asked() == 1


@pytest.mark.parametrize(("fault", "error", "reason"), REFUSALS)
def test_the_old_token_is_served_while_it_lives(
    house: House, fault: Fault, error: type[AccountError], reason: str
) -> None:
    """A refresh that fails early does not take away what still works."""
    house.sign_in(ANN)
    house.emulator.add_fault(fault)
    house.clock.advance(minutes=57)

    token = _read(house)
    assert (token.ttl(house.clock()), token.version) == (3 * MINUTE, 1)
    assert house.asked() == 1

    house.clock.advance(minutes=3)
    with pytest.raises((error, BackingOff)):
        _read(house)


@pytest.mark.parametrize(("fault", "error", "reason"), REFUSALS)
def test_an_operator_s_refresh_asks_and_tells_the_outcome(
    house: House, fault: Fault, error: type[AccountError], reason: str
) -> None:
    """Whatever the schedule says; and a token that still lives must not hide that it failed."""
    house.sign_in(ANN)
    house.emulator.add_fault(fault)

    for asked in (1, 2):
        with pytest.raises(error, match=reason):
            _refresh(house)
        assert house.asked() == asked


def test_who_backs_off_says_until_when_and_then_asks_again(house: House) -> None:
    """The application can tell its user when to come back."""
    house.enrol(ANN)
    house.emulator.add_fault(oauth_error("AADSTS90055", retry_after=90), times=1)

    with pytest.raises(BackingOff) as first:
        _read(house)
    house.clock.advance(seconds=60)
    with pytest.raises(BackingOff) as second:
        _read(house)
    house.clock.now += second.value.retry_after

    assert timedelta(seconds=90) <= first.value.retry_after <= timedelta(seconds=99)
    assert second.value.retry_after == first.value.retry_after - timedelta(seconds=60)
    assert _read(house).ttl(house.clock()) > timedelta(0)
    assert house.asked() == 2


def test_whoever_needs_its_user_passes_the_challenge_on(house: House) -> None:
    """Without the claims the sign-in that follows would be refused for the same reason."""
    house.enrol(ANN)
    house.emulator.add_fault(oauth_error("AADSTS50076", claims='{"access_token":{}}'))

    with pytest.raises(NeedsUser) as raised:
        _read(house)

    assert (raised.value.reason, raised.value.claims) == ("AADSTS50076", '{"access_token":{}}')


@pytest.mark.parametrize("aside", [_pause, _leave_oauth])
def test_an_account_set_aside_lives_on_its_last_token(house: House, aside: Callable[[House], None]) -> None:
    """Nobody asks for it any more, and what it has is used up."""
    house.sign_in(ANN)
    aside(house)

    assert _read(house).ttl(house.clock()) == HOUR
    house.services.redis.flushall()
    house.clock.advance(minutes=59)
    assert _read(house).ttl(house.clock()) == MINUTE
    house.clock.advance(minutes=1)
    with pytest.raises(AccountInactive, match=r"paused|not using OAuth"):
        _read(house)

    assert house.asked() == 0


@pytest.mark.parametrize("aside", [_pause, _leave_oauth, _disconnect])
@pytest.mark.parametrize("ask", [_read, _refresh])
def test_an_account_set_aside_is_not_asked_about(
    house: House, aside: Callable[[House], None], ask: Callable[[House], AccessToken]
) -> None:
    """Neither by a consumer nor by an operator who has forgotten."""
    house.enrol(ANN)
    aside(house)
    house.clock.advance(days=2)

    with pytest.raises(AccountInactive):
        ask(house)

    assert house.services.refresher.refresh_due() == {"claimed": 0}
    assert house.asked() == 0


def test_a_disconnected_account_gives_no_token_at_once(house: House) -> None:
    """Its user has withdrawn: the last token may live, and is not handed out."""
    house.sign_in(ANN)

    _disconnect(house)

    with pytest.raises(AccountInactive, match="disconnected"):
        _read(house)


def test_an_account_that_needs_its_user_is_looked_at_daily(house: House) -> None:
    """Administrators undo what they did, and then nobody has to sign in."""
    house.enrol(ANN)
    house.emulator.add_fault(oauth_error("AADSTS53003"), times=1)
    with pytest.raises(BlockedByAdmin):
        _read(house)

    house.clock.now += DAY * 1.1

    assert house.services.refresher.refresh_due() == {"claimed": 1, "refreshed": 1}
    assert _read(house).version == 2


def test_a_token_sealed_under_a_lost_key_names_its_account(house: House) -> None:
    """One account of many is in trouble: a message without its name would be a day's search."""
    house.sign_in(ANN)
    stranger = house.another(encryption_keys=SecretStr(generate_key("other")))

    with pytest.raises(UnreadableSecret, match=ANN) as raised:
        stranger.tokens.get(ANN)

    assert "'k1'" in str(raised.value)
    assert house.asked() == 0
    assert _read(house).email == ANN


def test_a_refresh_token_sealed_under_a_lost_key_names_its_account(house: House) -> None:
    """Likewise where there is no access token yet; the account is fine, it is this process that lacks something."""
    house.enrol(ANN)
    before = house.account().refresh_token
    stranger = house.another(encryption_keys=SecretStr(generate_key("other")))

    with pytest.raises(UnreadableSecret, match=ANN):
        stranger.tokens.get(ANN)

    assert (house.account().status, house.account().refresh_token) == (Status.ACTIVE, before)
    assert house.asked() == 0
    house.clock.advance(minutes=1)
    assert _read(house).version == 2


def test_an_answer_without_a_lifetime_that_suits_is_still_an_answer(house: House) -> None:
    """Microsoft's newest is what there is, even if it is short of the wish: no loop, no error."""
    house.enrol(ANN, access_token_lifetime=timedelta(seconds=2))

    token = house.services.tokens.get(ANN, min_ttl=HOUR)

    assert token.ttl(house.clock()) == timedelta(seconds=2)
    assert house.asked() == 1


def test_a_token_that_is_dead_on_arrival_is_not_served(house: House) -> None:
    """The platform was slower than its token: what a caller gets is live or an error."""
    house.enrol(ANN, access_token_lifetime=timedelta(seconds=2))

    with house.in_flight(lambda: _read(house)) as reading:
        house.clock.advance(seconds=3)

    with pytest.raises(Unavailable):
        reading.result()
