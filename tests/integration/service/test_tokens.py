"""A live access token for whoever asks: from Redis, else from Postgres, else by one refresh."""

from datetime import timedelta

import jwt
import pytest

from tests.integration.service.house import ANN, BOB, HOUR, MINUTE, PERSISTED, RECOVERED, House
from worker.domain.account import account_id
from worker.domain.errors import InvalidInput, UnknownAccount


def _entry_key(email: str = ANN) -> str:
    return f"token-worker:entry:{account_id(email)}"


def test_a_token_in_redis_costs_no_sql(house: House) -> None:
    """Consumers ask before every mailbox they open; Postgres must not notice."""
    house.sign_in(ANN)

    with house.counted() as statements:
        token = house.services.tokens.get(ANN)

    assert statements == []
    assert (token.email, token.expires_at) == (ANN, house.clock() + HOUR)
    assert jwt.decode(token.value, options={"verify_signature": False})["upn"] == ANN
    assert house.asked() == 0


def test_a_miss_is_rebuilt_from_postgres_and_told(house: House) -> None:
    """Redis is flushed: the caller does not notice, the operator does, and once is enough."""
    house.sign_in(ANN)
    before = house.services.tokens.get(ANN)
    house.services.redis.flushall()

    assert house.services.tokens.get(ANN) == before
    with house.counted() as statements:
        assert house.services.tokens.get(ANN) == before

    assert house.told(RECOVERED) == [ANN]
    assert statements == []
    assert house.asked() == 0


def test_an_entry_lives_for_a_day_and_its_token_by_its_own_expiry(house: House) -> None:
    """What Redis forgets and what is stale are two things: an entry that is still there may hold a dead token."""
    house.sign_in(ANN)
    lifetime = house.services.redis.pttl(_entry_key())
    assert 86_390_000 < lifetime <= 86_400_000

    house.clock.advance(hours=2)
    token = house.services.tokens.get(ANN)

    assert token.expires_at > house.clock()
    assert house.asked() == 1


def test_a_stale_token_is_refreshed_once_and_by_a_consumer(house: House) -> None:
    """The ledger tells who wanted it, and the next to ask gets it from Redis."""
    house.enrol(ANN)

    token = house.services.tokens.get(ANN)
    with house.counted() as statements:
        assert house.services.tokens.get(ANN) == token

    assert house.asked() == 1
    assert statements == []
    [line] = house.services.events.latest(account_id(ANN))
    assert (line["trigger"], line["outcome"]) == ("consumer", "refreshed")


def test_a_refresh_is_not_told_as_a_recovery(house: House) -> None:
    """The line is what operators count after a flush of Redis; here nothing was lost."""
    house.enrol(ANN)

    house.services.tokens.get(ANN)

    assert house.told(PERSISTED) == [ANN]
    assert house.told(RECOVERED) == []


@pytest.mark.parametrize(
    ("lifetime", "left", "fresh"),
    [
        pytest.param(HOUR, 6 * MINUTE, True, id="more than five minutes"),
        pytest.param(HOUR, 4 * MINUTE, False, id="less than five minutes"),
        pytest.param(8 * MINUTE, 3 * MINUTE, True, id="short-lived, more than a quarter"),
        pytest.param(8 * MINUTE, 1 * MINUTE, False, id="short-lived, less than a quarter"),
    ],
)
def test_without_a_wish_a_token_is_good_until_it_gets_tight(
    house: House, lifetime: timedelta, left: timedelta, fresh: bool
) -> None:
    """Five minutes to work with, or a quarter of a life that is shorter: else each read would be a refresh."""
    house.sign_in(ANN, lifetime=lifetime)
    house.clock.now += lifetime - left

    token = house.services.tokens.get(ANN)

    assert house.asked() == (0 if fresh else 1)
    assert token.ttl(house.clock()) == (left if fresh else lifetime)


def test_a_wish_for_more_life_is_granted_by_a_refresh(house: House) -> None:
    """Who is about to download for half an hour asks for half an hour."""
    house.sign_in(ANN)
    house.clock.advance(minutes=31)

    house.services.tokens.get(ANN, min_ttl=20 * MINUTE)
    assert house.asked() == 0
    token = house.services.tokens.get(ANN, min_ttl=30 * MINUTE)

    assert token.ttl(house.clock()) == HOUR
    assert house.asked() == 1


def test_a_wish_that_no_token_can_grant_costs_one_refresh_and_not_one_per_read(house: House) -> None:
    """Asking for more than a lifetime gets the newest there is."""
    house.sign_in(ANN)
    house.clock.advance(minutes=31)

    tokens = [house.services.tokens.get(ANN, min_ttl=24 * HOUR) for _ in range(3)]

    assert {token.ttl(house.clock()) for token in tokens} == {HOUR}
    assert house.asked() == 1


def test_a_wish_for_nothing_takes_what_lives(house: House) -> None:
    """A caller who is quick may use a token to its last second, never beyond."""
    house.sign_in(ANN)
    house.clock.advance(minutes=59, seconds=59)
    house.services.tokens.get(ANN, min_ttl=timedelta(0))
    assert house.asked() == 0

    house.clock.advance(seconds=1)
    house.services.tokens.get(ANN, min_ttl=timedelta(0))

    assert house.asked() == 1


def test_an_answer_without_a_refresh_token_keeps_the_old_one_in_the_cache_too(house: House) -> None:
    """An entry is whole, whoever wrote it: with it a consumer could go on while Postgres is away."""
    house.enrol(ANN, rotate=False)
    before = house.account().refresh_token

    house.services.tokens.get(ANN)

    entry = house.cached()
    assert entry
    assert entry.refresh_token == before == house.account().refresh_token


def test_any_spelling_of_the_address_is_the_same_account(house: House) -> None:
    """Sign-in pages and mail programs do not agree on capitals."""
    house.sign_in(ANN)

    assert house.services.tokens.get("  Ann@CONTOSO.com ") == house.services.tokens.get(ANN)


def test_an_account_that_was_never_stored_is_unknown(house: House) -> None:
    """The caller learns which, and Microsoft nothing."""
    with pytest.raises(UnknownAccount, match=BOB):
        house.services.tokens.get(BOB)
    with pytest.raises(InvalidInput):
        house.services.tokens.get("bob")
    with pytest.raises(UnknownAccount):
        house.services.on_demand.refresh(account_id(BOB))
    assert house.asked() == 0


@pytest.mark.parametrize(
    "value",
    [b"", b"garbage", b"1 00000000000000000001 ", b"2 00000000000000000009 sealed", b"1 99999999999999999999 x"],
)
def test_what_is_no_entry_is_a_miss(house: House, value: bytes) -> None:
    """Redis is shared with others and restored from anywhere: what it holds is believed only if it opens."""
    house.sign_in(ANN)
    token = house.services.tokens.get(ANN)
    house.services.redis.set(_entry_key(), value)

    assert house.services.tokens.get(ANN) == token


def test_a_key_of_another_type_is_a_miss(house: House) -> None:
    """Whoever put a list there must not keep an account from its mail."""
    house.sign_in(ANN)
    house.services.redis.delete(_entry_key())
    house.services.redis.lpush(_entry_key(), "x")

    assert house.services.tokens.get(ANN).email == ANN
    assert house.told(RECOVERED) == []  # nothing was cached, and it is not claimed


def test_another_account_s_entry_is_a_miss(house: House) -> None:
    """Who can write to Redis must not be able to hand one user another user's mailbox."""
    house.sign_in(ANN, BOB)
    bobs = house.services.redis.get(_entry_key(BOB))
    assert isinstance(bobs, bytes)
    house.services.redis.set(_entry_key(ANN), bobs)

    assert house.services.tokens.get(ANN).email == ANN


def test_an_old_entry_with_a_new_number_in_front_is_a_miss(house: House) -> None:
    """The number in front is not sealed; believed, it would let a replayed entry outlive every newer one."""
    house.sign_in(ANN)
    old = house.services.redis.get(_entry_key())
    assert isinstance(old, bytes)
    house.sign_in(ANN)
    newest = house.services.tokens.get(ANN)
    house.services.redis.set(_entry_key(), b"1 %020d " % 99 + old.split(b" ", 2)[2])

    assert house.services.tokens.get(ANN) == newest
