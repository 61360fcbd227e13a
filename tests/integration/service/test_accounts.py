"""Saving grants and changing accounts: Postgres is written first, then the cache, and no late write undoes a change."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from pydantic import SecretStr

from tests.constants import ANN, BOB, CAT, HOUR
from tests.integration import counting
from tests.integration.installation import Installation
from worker.devkit.emulator import oauth_error
from worker.devkit.stack import Stack
from worker.domain.account import Grant, MailServers, Status
from worker.domain.errors import AccountInactive, InvalidInput, Unavailable, UnknownAccount
from worker.domain.selection import Selection
from worker.domain.token import Secret, as_text
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


def test_a_saved_grant_is_in_postgres_and_in_redis(installation: Installation) -> None:
    """The row and the entry are as the storage contract says."""
    grant = installation.grant(ANN)

    installation.services.accounts.save([grant])

    assert installation.stored_secret(Purpose.REFRESH_TOKEN) == grant.refresh_token.reveal()
    assert grant.access_token
    assert installation.stored_secret(Purpose.ACCESS_TOKEN) == grant.access_token.reveal()
    entry = installation.cached()
    assert entry
    assert entry.token
    assert (entry.token.secret, entry.version, entry.status) == (grant.access_token, 1, Status.ACTIVE)
    stored = installation.account().refresh_token
    assert stored
    assert entry.refresh_token == as_text(stored)


def test_nothing_is_cached_that_postgres_has_not_committed(installation: Installation, stores: Stack) -> None:
    """No row would refresh such a token, so it would end with its hour."""
    stores.postgres.stop()

    with pytest.raises(Unavailable):
        installation.services.accounts.save([installation.grant(ANN)])

    assert installation.services.redis.keys() == []


def test_a_grant_is_stored_while_redis_is_unavailable(installation: Installation, stores: Stack) -> None:
    """A sign-in must not fail because of the cache."""
    stores.valkey.stop()

    installation.sign_in(ANN)

    stores.valkey.start()
    assert installation.services.tokens.get(ANN).version == 1


def test_a_grant_without_a_usable_access_token_is_due_at_once(installation: Installation) -> None:
    """A token without a known expiry cannot be served. The refresh token gets a better one."""
    grants = [installation.grant(email) for email in (ANN, BOB, CAT)]
    installation.services.accounts.save(
        [
            replace(grants[0], access_token=None),
            replace(grants[1], expires_at=None),
            replace(grants[2], expires_at=installation.clock()),
        ]
    )

    assert [account.access_token for account in installation.services.accounts.list()] == [None] * 3
    assert installation.refresh_due() == {"leased": 3, "refreshed": 3}


def test_a_grant_with_an_access_token_is_due_in_the_middle_of_its_life(installation: Installation) -> None:
    """A sign-in causes no further request."""
    installation.sign_in(ANN)

    due = installation.account().due_at
    assert due
    assert installation.clock() + HOUR * 0.5 <= due <= installation.clock() + HOUR * 0.7


@pytest.mark.parametrize("spoiled", _BAD.values(), ids=_BAD)
def test_one_bad_grant_stores_none(installation: Installation, spoiled: dict[str, object]) -> None:
    """A grant that could never be refreshed is rejected while a user can still read the reason."""
    good, bad = installation.grant(ANN), replace(installation.grant(BOB), **spoiled)  # type: ignore[arg-type]

    with pytest.raises(InvalidInput) as raised:
        installation.services.accounts.save([good, bad])

    assert list(installation.services.accounts.list()) == []
    assert installation.services.redis.keys() == []
    assert good.refresh_token.reveal() not in str(raised.value)


def test_of_two_grants_for_one_account_the_last_counts(installation: Installation) -> None:
    """Different spellings are one mailbox, and the later sign-in is the newer one."""
    first, second = installation.grant(ANN), replace(installation.grant(ANN), email="Ann@Contoso.COM")

    installation.services.accounts.save([first, second])

    assert installation.stored_secret(Purpose.REFRESH_TOKEN) == second.refresh_token.reveal()
    assert installation.account().email == ANN


@pytest.mark.parametrize("code", ["AADSTS50173", "AADSTS53003", "AADSTS7000215", "AADSTS90033", "AADSTS999999"])
def test_a_sign_in_clears_failures(installation: Installation, code: str) -> None:
    """The failure was about the old grant."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error(code), times=1)
    installation.refresh_due()
    assert installation.account().failure

    installation.sign_in(ANN)

    account = installation.account()
    assert (account.status, account.failure, account.claims) == (Status.ACTIVE, None, None)
    token = installation.services.tokens.get(ANN)
    assert token.version == account.version
    installation.clock.advance(hours=2)
    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}


def test_a_sign_in_brings_a_disconnected_account_back(installation: Installation) -> None:
    """The cache keeps an entry without tokens. It must not replace the new grant."""
    installation.sign_in(ANN)
    installation.services.accounts.disconnect(ANN)

    installation.sign_in(ANN)

    with counting.statements() as statements:
        assert installation.services.tokens.get(ANN).ttl(installation.clock()) == HOUR
    assert statements == []


def test_a_sign_in_keeps_values_that_it_does_not_contain(installation: Installation) -> None:
    """A mailbox on servers of its own stays there."""
    servers = MailServers(imap_host="imap.example", imap_port=1993, smtp_host="smtp.example", smtp_port=1587)
    installation.services.accounts.save([replace(installation.grant(ANN), mail=servers)])

    installation.sign_in(ANN)

    assert installation.account().mail == servers


def test_a_disconnected_account_leaves_no_token_behind(installation: Installation) -> None:
    """Neither in Postgres nor in Redis."""
    installation.sign_in(ANN, due=True)
    installation.refresh_due()

    installation.services.accounts.disconnect(ANN)

    [columns] = installation.query("SELECT access_token, refresh_token FROM mail_credentials")
    assert columns == (None, None)
    entry = installation.cached()
    assert entry
    assert (entry.status, entry.token, entry.refresh_token) == (Status.DISCONNECTED, None, None)


def test_a_late_writer_does_not_bring_a_disconnected_account_back_into_the_cache(installation: Installation) -> None:
    """The writer stopped between the commit and the write to the cache, and goes on after the disconnect."""
    installation.sign_in(ANN)
    late = installation.cached()
    assert late
    installation.services.accounts.disconnect(ANN)

    TokenCache(installation.services.cache, Vault(installation.settings.keys)).publish([late])

    entry = installation.cached()
    assert entry
    assert entry.token is None
    with pytest.raises(AccountInactive):
        installation.services.tokens.get(ANN)


def test_a_disconnect_that_did_not_reach_redis_raises_an_error(installation: Installation, stores: Stack) -> None:
    """Redis comes back with the token in it.

    Either the caller got an error and repeats the disconnect, or it took effect.
    """
    installation.sign_in(ANN)
    stores.valkey.stop()
    failed = False
    try:
        installation.services.accounts.disconnect(ANN)
    except Unavailable:
        failed = True
    stores.valkey.start()
    if failed:
        installation.services.accounts.disconnect(ANN)

    with pytest.raises(AccountInactive):
        installation.services.tokens.get(ANN)


def test_a_refresh_in_flight_does_not_undo_a_disconnect(installation: Installation) -> None:
    """Its result is older than the disconnect and reaches neither Postgres nor Redis."""
    installation.sign_in(ANN, due=True)

    with installation.in_flight(installation.refresh_due) as refresh:
        installation.services.accounts.disconnect(ANN)

    assert refresh.result() == {"leased": 1}
    after = installation.account()
    assert (after.status, after.access_token, after.due_at) == (Status.DISCONNECTED, None, None)
    entry = installation.cached()
    assert entry is None or entry.token is None


def test_a_paused_account_is_resumed_at_once(installation: Installation) -> None:
    """The account is due at once, and its failures are cleared."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS53003"), times=1)
    installation.refresh_due()
    installation.services.accounts.pause(ANN)

    installation.services.accounts.resume(ANN)

    assert (installation.account().status, installation.account().failure) == (Status.ACTIVE, None)
    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}


def test_an_account_set_aside_for_a_wrong_key_is_resumed_once_the_key_is_right(installation: Installation) -> None:
    """Nothing was overwritten meanwhile, so no user has to sign in."""
    installation.sign_in(ANN, due=True)
    stranger = installation.another_process(
        encryption_keys=SecretStr(generate_key("k1"))
    )  # the right key id with another key
    stranger.refresher.refresh_due()
    assert installation.account().status is Status.UNREADABLE

    installation.services.accounts.resume(ANN)

    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}


def test_a_disconnected_account_cannot_be_resumed(installation: Installation) -> None:
    """Its tokens are gone, so it must not appear as refreshed."""
    installation.sign_in(ANN)
    installation.services.accounts.disconnect(ANN)

    with pytest.raises(InvalidInput, match=ANN):
        installation.services.accounts.resume(ANN)

    assert installation.account().status is Status.DISCONNECTED


@pytest.mark.parametrize("verb", ["pause", "resume", "disconnect", "find"])
def test_an_unknown_account_cannot_be_changed(installation: Installation, verb: str) -> None:
    """A misspelt address must raise an error."""
    act: Callable[[str], object] = getattr(installation.services.accounts, verb)

    with pytest.raises(UnknownAccount, match=BOB):
        act(BOB)
    with pytest.raises(InvalidInput):
        act("bob")


def test_accounts_are_listed_across_pages(installation: Installation) -> None:
    """They are in order, and each appears once."""
    emails = [f"user{number:04}@contoso.com" for number in range(1001)]
    installation.services.accounts.save([Grant(email=email, refresh_token=Secret("r")) for email in reversed(emails)])
    installation.services.accounts.pause(emails[7])

    assert [account.email for account in installation.services.accounts.list()] == emails
    paused = Selection(statuses=frozenset({Status.PAUSED}))
    assert [each.email for each in installation.services.accounts.list(paused)] == [emails[7]]
