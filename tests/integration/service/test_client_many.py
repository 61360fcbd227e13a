"""Many accounts in one call: one read of each store, and no account delays or fails another."""

import pytest

from tests.constants import ANN, BOB, CAT, HOUR, MINUTE, RECOVERED
from tests.integration import counting
from tests.integration.installation import Installation
from worker.client import AccessToken, InvalidInput, NeedsUser, TokenClient, Unavailable, UnknownAccount
from worker.devkit.emulator import oauth_error
from worker.devkit.stack import Stack


def test_cached_tokens_are_read_in_one_round_trip(installation: Installation, client: TokenClient) -> None:
    """A page lists a hundred mailboxes. A second read within seconds costs nothing."""
    emails = [f"user{number}@contoso.com" for number in range(100)]
    installation.sign_in(*emails)
    client.get(emails[0])  # opens the connection
    installation.clock.advance(seconds=11)

    with counting.statements() as statements, counting.commands(installation.services.redis) as commands:
        first = client.get_many(emails)
        again = client.get_many(emails)

    assert commands == {"getrange": 100}
    assert statements == []
    assert list(first) == emails
    assert {type(token) for token in first.values()} == {AccessToken}
    assert first == again


def test_tokens_that_are_not_cached_cost_one_query_and_are_cached_again(
    installation: Installation, client: TokenClient
) -> None:
    """After a flush of Redis, a hundred accounts do not cost a hundred queries."""
    emails = [f"user{number}@contoso.com" for number in range(100)]
    installation.sign_in(*emails)
    installation.services.redis.flushall()

    with counting.statements() as statements:
        tokens = client.get_many(emails)

    assert len(statements) == 1
    assert {type(token) for token in tokens.values()} == {AccessToken}
    assert sorted(installation.logged(RECOVERED)) == sorted(emails)
    assert installation.cached(emails[50])
    assert installation.requests == 0


def test_stale_accounts_are_refreshed_together(installation: Installation, client: TokenClient) -> None:
    """Each stale account is refreshed once, and no request is sent for the fresh ones."""
    stale = [f"stale{number}@contoso.com" for number in range(20)]
    installation.sign_in(*stale, due=True, strict=True)
    installation.sign_in(ANN)

    tokens = client.get_many([*stale, ANN], min_ttl=30 * 60)

    assert all(
        isinstance(token, AccessToken) and token.ttl(installation.clock()) > 30 * MINUTE for token in tokens.values()
    )
    assert installation.requests == 20


def test_the_error_of_one_account_does_not_affect_the_others(installation: Installation, client: TokenClient) -> None:
    """The error is a value in the result, under the address as the caller spelt it."""
    installation.sign_in(ANN, due=True)
    installation.sign_in(BOB)
    installation.emulator.add_fault(oauth_error("AADSTS50173"), ANN)

    found = client.get_many(["Ann@Contoso.com", BOB, CAT, "nobody", BOB.upper()])

    kinds = {email: type(value) for email, value in found.items()}
    assert kinds == {
        "Ann@Contoso.com": NeedsUser,
        BOB: AccessToken,
        CAT: UnknownAccount,
        "nobody": InvalidInput,
        BOB.upper(): AccessToken,
    }
    assert found[BOB] == found[BOB.upper()]
    assert client.get_many([]) == {}


def test_while_postgres_is_down_each_account_gets_its_token_or_error(
    installation: Installation, client: TokenClient, stores: Stack
) -> None:
    """Each account gets its cached token while that lives, or an error that says what is unavailable."""
    installation.sign_in(ANN)
    installation.sign_in(BOB, lifetime=HOUR / 2)
    installation.clock.advance(minutes=40)
    stores.postgres.stop()

    found = client.get_many([ANN, BOB, CAT])

    assert isinstance(found[ANN], AccessToken)
    assert isinstance(found[BOB], Unavailable)
    assert isinstance(found[CAT], Unavailable)
    assert installation.requests == 0


@pytest.mark.parametrize("emails", [[ANN, BOB], [ANN]])
def test_while_redis_is_down_tokens_are_read_from_postgres(
    installation: Installation, client: TokenClient, stores: Stack, emails: list[str]
) -> None:
    """The local cache spares Postgres the second read."""
    installation.sign_in(ANN, BOB)
    stores.valkey.stop()

    with counting.statements() as statements:
        first, second = client.get_many(emails), client.get_many(emails)

    assert first == second
    assert {type(token) for token in first.values()} == {AccessToken}
    assert len(statements) == 1
