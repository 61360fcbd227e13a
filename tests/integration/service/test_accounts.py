"""Putting grants in and taking accounts out: Postgres first, then the cache, and nothing late undoes it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from pydantic import SecretStr

from tests.integration.service.house import ANN, BOB, CAT, HOUR, House
from worker.devkit.emulator import oauth_error
from worker.devkit.stack import Stack
from worker.domain.account import Grant, MailServers, Status
from worker.domain.errors import AccountInactive, InvalidInput, Unavailable, UnknownAccount
from worker.domain.secret import Secret
from worker.service.tokens.cache import TokenCache
from worker.vault import Purpose, Vault, generate_key

_BAD = {
    "an unknown registration": {"client": "nobody"},
    "a foreign host": {"authority": "https://login.example/contoso.com"},
    "no tenant": {"authority": "https://localhost"},
    "a scope that is implied": {"scopes": ("offline_access",)},
    "no address": {"email": "bob"},
    "no refresh token": {"refresh_token": Secret("")},
}


def test_a_saved_grant_is_in_postgres_and_in_redis(house: House) -> None:
    """What the storage contract says of adding an account."""
    grant = house.grant(ANN)

    house.services.accounts.save([grant])

    assert house.opened(Purpose.REFRESH_TOKEN) == grant.refresh_token.reveal()
    assert grant.access_token
    assert house.opened(Purpose.ACCESS_TOKEN) == grant.access_token.reveal()
    entry = house.cached()
    assert entry
    assert entry.token
    assert (entry.token.secret, entry.version, entry.status) == (grant.access_token, 1, Status.ACTIVE)
    assert entry.refresh_token == house.account().refresh_token


def test_nothing_is_cached_that_postgres_has_not_committed(house: House, stores: Stack) -> None:
    """A token in Redis that no row knows would be refreshed by nobody, and end with its hour."""
    stores.postgres.stop()

    with pytest.raises(Unavailable):
        house.services.accounts.save([house.grant(ANN)])

    assert house.services.redis.keys() == []


def test_a_grant_is_stored_while_redis_is_away(house: House, stores: Stack) -> None:
    """A sign-in must not fail for the want of a cache."""
    stores.valkey.stop()

    house.sign_in(ANN)

    stores.valkey.start()
    assert house.services.tokens.get(ANN).version == 1


def test_a_grant_without_a_usable_access_token_is_due_at_once(house: House) -> None:
    """A token whose end nobody knows cannot be served; the refresh token gets a better one."""
    grants = [house.grant(email) for email in (ANN, BOB, CAT)]
    house.services.accounts.save(
        [
            replace(grants[0], access_token=None),
            replace(grants[1], expires_at=None),
            replace(grants[2], expires_at=house.clock()),
        ]
    )

    assert [account.access_token for account in house.services.accounts.list()] == [None] * 3
    assert house.services.refresher.refresh_due() == {"claimed": 3, "refreshed": 3}


def test_a_grant_with_an_access_token_is_due_in_the_middle_of_its_life(house: House) -> None:
    """A sign-in costs no second request."""
    house.sign_in(ANN)

    due = house.account().due_at
    assert due
    assert house.clock() + HOUR * 0.5 <= due <= house.clock() + HOUR * 0.7


@pytest.mark.parametrize("spoiled", _BAD.values(), ids=_BAD)
def test_one_bad_grant_stores_none(house: House, spoiled: dict[str, object]) -> None:
    """What could never be refreshed is refused while somebody is there to read why."""
    good, bad = house.grant(ANN), replace(house.grant(BOB), **spoiled)  # type: ignore[arg-type]

    with pytest.raises(InvalidInput) as raised:
        house.services.accounts.save([good, bad])

    assert list(house.services.accounts.list()) == []
    assert house.services.redis.keys() == []
    assert good.refresh_token.reveal() not in str(raised.value)


def test_of_two_grants_for_one_account_the_last_counts(house: House) -> None:
    """Spelt differently, they are still one mailbox, and the later sign-in is the newer."""
    first, second = house.grant(ANN), replace(house.grant(ANN), email="Ann@Contoso.COM")

    house.services.accounts.save([first, second])

    assert house.opened(Purpose.REFRESH_TOKEN) == second.refresh_token.reveal()
    assert house.account().email == ANN


@pytest.mark.parametrize("code", ["AADSTS50173", "AADSTS53003", "AADSTS7000215", "AADSTS90033", "AADSTS999999"])
def test_a_sign_in_heals(house: House, code: str) -> None:
    """Whatever was wrong before, it was about the old grant."""
    house.enrol(ANN)
    house.emulator.add_fault(oauth_error(code), times=1)
    house.services.refresher.refresh_due()
    assert house.account().failure

    house.sign_in(ANN)

    account = house.account()
    assert (account.status, account.failure, account.claims) == (Status.ACTIVE, None, None)
    token = house.services.tokens.get(ANN)
    assert token.version == account.version
    house.clock.advance(hours=2)
    assert house.services.refresher.refresh_due() == {"claimed": 1, "refreshed": 1}


def test_a_sign_in_brings_a_disconnected_account_back(house: House) -> None:
    """The entry without tokens that the cache keeps of it must not outrank the new grant."""
    house.sign_in(ANN)
    house.services.accounts.disconnect(ANN)

    house.sign_in(ANN)

    with house.counted() as statements:
        assert house.services.tokens.get(ANN).ttl(house.clock()) == HOUR
    assert statements == []


def test_a_sign_in_keeps_what_it_does_not_mention(house: House) -> None:
    """A mailbox on servers of its own stays there."""
    servers = MailServers(imap_host="imap.example", imap_port=1993, smtp_host="smtp.example", smtp_port=1587)
    house.services.accounts.save([replace(house.grant(ANN), mail=servers)])

    house.sign_in(ANN)

    assert house.account().mail == servers


def test_a_disconnected_account_leaves_no_token_behind(house: House) -> None:
    """Not in Postgres, not in Redis, and not the refresh token before the last."""
    house.enrol(ANN)
    house.services.refresher.refresh_due()

    house.services.accounts.disconnect(ANN)

    [columns] = house.query("SELECT access_token, refresh_token, previous_refresh_token FROM mail_credentials")
    assert columns == (None, None, None)
    entry = house.cached()
    assert entry
    assert (entry.status, entry.token, entry.refresh_token) == (Status.DISCONNECTED, None, None)


def test_a_late_writer_does_not_bring_a_disconnected_account_back_into_the_cache(house: House) -> None:
    """It was stopped between commit and publish, and goes on after the user has withdrawn."""
    house.sign_in(ANN)
    late = house.cached()
    assert late
    house.services.accounts.disconnect(ANN)

    TokenCache(house.services.cache, Vault(house.settings.keys)).publish([late])

    entry = house.cached()
    assert entry
    assert entry.token is None
    with pytest.raises(AccountInactive):
        house.services.tokens.get(ANN)


def test_a_withdrawal_that_redis_did_not_hear_of_is_not_done(house: House, stores: Stack) -> None:
    """Redis comes back with the token in it: whoever withdrew must have been told to repeat it, or be obeyed."""
    house.sign_in(ANN)
    stores.valkey.stop()
    told = False
    try:
        house.services.accounts.disconnect(ANN)
    except Unavailable:
        told = True
    stores.valkey.start()
    if told:
        house.services.accounts.disconnect(ANN)

    with pytest.raises(AccountInactive):
        house.services.tokens.get(ANN)


def test_a_refresh_under_way_does_not_undo_a_withdrawal(house: House) -> None:
    """Its answer is the older decision, and reaches neither Postgres nor Redis."""
    house.enrol(ANN)

    with house.in_flight(house.services.refresher.refresh_due) as refresh:
        house.services.accounts.disconnect(ANN)

    assert refresh.result() == {"claimed": 1}
    after = house.account()
    assert (after.status, after.access_token, after.due_at) == (Status.DISCONNECTED, None, None)
    entry = house.cached()
    assert entry is None or entry.token is None


def test_a_paused_account_is_resumed_at_once(house: House) -> None:
    """Due from then on, and its failures forgiven: the operator has seen to them."""
    house.enrol(ANN)
    house.emulator.add_fault(oauth_error("AADSTS53003"), times=1)
    house.services.refresher.refresh_due()
    house.services.accounts.pause(ANN)

    house.services.accounts.resume(ANN)

    assert (house.account().status, house.account().failure) == (Status.ACTIVE, None)
    assert house.services.refresher.refresh_due() == {"claimed": 1, "refreshed": 1}


def test_an_account_set_aside_for_a_wrong_key_is_resumed_once_the_key_is_right(house: House) -> None:
    """Nothing was overwritten meanwhile, so nobody has to sign in."""
    house.enrol(ANN)
    stranger = house.another(encryption_keys=SecretStr(generate_key("k1")))  # the right name, and another key
    stranger.refresher.refresh_due()
    assert house.account().status is Status.UNREADABLE

    house.services.accounts.resume(ANN)

    assert house.services.refresher.refresh_due() == {"claimed": 1, "refreshed": 1}


def test_a_disconnected_account_cannot_be_resumed(house: House) -> None:
    """Its tokens are gone; it must not look as if it were refreshed."""
    house.sign_in(ANN)
    house.services.accounts.disconnect(ANN)

    with pytest.raises(InvalidInput, match=ANN):
        house.services.accounts.resume(ANN)

    assert house.account().status is Status.DISCONNECTED


@pytest.mark.parametrize("verb", ["pause", "resume", "disconnect", "find"])
def test_what_is_not_there_cannot_be_acted_on(house: House, verb: str) -> None:
    """A misspelt address must not pass in silence."""
    act: Callable[[str], object] = getattr(house.services.accounts, verb)

    with pytest.raises(UnknownAccount, match=BOB):
        act(BOB)
    with pytest.raises(InvalidInput):
        act("bob")


def test_accounts_are_listed_across_pages(house: House) -> None:
    """In order, each once, however many."""
    emails = [f"user{number:04}@contoso.com" for number in range(1001)]
    house.services.accounts.save([Grant(email=email, refresh_token=Secret("r")) for email in reversed(emails)])
    house.services.accounts.pause(emails[7])

    assert [account.email for account in house.services.accounts.list()] == emails
    assert [each.email for each in house.services.accounts.list(status=Status.PAUSED)] == [emails[7]]
