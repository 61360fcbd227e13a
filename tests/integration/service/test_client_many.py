"""Many accounts in one call: one look at each store, and nobody pays for another."""

import pytest

from tests.integration.service import counting
from tests.integration.service.house import ANN, BOB, CAT, HOUR, MINUTE, RECOVERED, House
from worker.client import AccessToken, InvalidInput, NeedsUser, TokenClient, Unavailable, UnknownAccount
from worker.devkit.emulator import oauth_error
from worker.devkit.stack import Stack


def test_what_is_cached_is_read_in_one_round_trip(house: House, client: TokenClient) -> None:
    """A page lists a hundred mailboxes; asked again within seconds it costs nothing."""
    emails = [f"user{number}@contoso.com" for number in range(100)]
    house.sign_in(*emails)
    client.get(emails[0])  # connects
    house.clock.advance(seconds=11)

    with counting.sql() as statements, counting.commands(house.services.redis) as commands:
        first = client.get_many(emails)
        again = client.get_many(emails)

    assert commands == {"mget": 1}
    assert statements == []
    assert list(first) == emails
    assert {type(token) for token in first.values()} == {AccessToken}
    assert first == again


def test_what_is_not_cached_is_one_query_and_comes_back_into_the_cache(house: House, client: TokenClient) -> None:
    """Redis is flushed: not a query for each of a hundred."""
    emails = [f"user{number}@contoso.com" for number in range(100)]
    house.sign_in(*emails)
    house.services.redis.flushall()

    with counting.sql() as statements:
        tokens = client.get_many(emails)

    assert len(statements) == 1
    assert {type(token) for token in tokens.values()} == {AccessToken}
    assert sorted(house.told(RECOVERED)) == sorted(emails)
    assert house.cached(emails[50])
    assert house.asked() == 0


def test_the_stale_are_refreshed_together(house: House, client: TokenClient) -> None:
    """Once each; the fresh are not asked about."""
    stale = [f"stale{number}@contoso.com" for number in range(20)]
    house.enrol(*stale, strict=True)
    house.sign_in(ANN)

    tokens = client.get_many([*stale, ANN], min_ttl=30 * 60)

    assert all(isinstance(token, AccessToken) and token.ttl(house.clock()) > 30 * MINUTE for token in tokens.values())
    assert house.asked() == 20


def test_an_account_s_trouble_is_its_own(house: House, client: TokenClient) -> None:
    """It comes as a value, under the address as it was given."""
    house.enrol(ANN)
    house.sign_in(BOB)
    house.emulator.add_fault(oauth_error("AADSTS50173"), ANN)

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


def test_while_postgres_is_away_each_gets_what_there_is(house: House, client: TokenClient, stores: Stack) -> None:
    """A token from the cache while it lives, or an error that says what is unavailable."""
    house.sign_in(ANN)
    house.sign_in(BOB, lifetime=HOUR / 2)
    house.clock.advance(minutes=40)
    stores.postgres.stop()

    found = client.get_many([ANN, BOB, CAT])

    assert isinstance(found[ANN], AccessToken)
    assert isinstance(found[BOB], Unavailable)
    assert isinstance(found[CAT], Unavailable)
    assert house.asked() == 0


@pytest.mark.parametrize("emails", [[ANN, BOB], [ANN]])
def test_while_redis_is_away_postgres_answers(
    house: House, client: TokenClient, stores: Stack, emails: list[str]
) -> None:
    """And the memory spares it the second time."""
    house.sign_in(ANN, BOB)
    stores.valkey.stop()

    with counting.sql() as statements:
        first, second = client.get_many(emails), client.get_many(emails)

    assert first == second
    assert {type(token) for token in first.values()} == {AccessToken}
    assert len(statements) == 1
