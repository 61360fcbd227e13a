"""A live access token for whoever asks: from Redis, else from Postgres, else by one refresh."""

from datetime import timedelta

import jwt
import pytest

from tests.constants import ANN, BOB, HOUR, MINUTE, PERSISTED, RECOVERED
from tests.integration import counting
from tests.integration.installation import Installation
from worker.domain.account import account_id
from worker.domain.errors import InvalidInput, UnknownAccount
from worker.domain.token import as_text


def _entry_key(email: str = ANN) -> str:
    return f"token-worker:entry:{account_id(email)}"


def test_a_token_in_redis_costs_no_sql(installation: Installation) -> None:
    """Consumers ask before every mailbox they open; Postgres must not notice."""
    installation.sign_in(ANN)

    with counting.statements() as statements:
        token = installation.services.tokens.get(ANN)

    assert statements == []
    assert (token.email, token.expires_at) == (ANN, installation.clock() + HOUR)
    assert jwt.decode(token.value, options={"verify_signature": False})["upn"] == ANN
    assert installation.requests == 0


def test_a_miss_is_rebuilt_from_postgres_and_logged(installation: Installation) -> None:
    """Redis is flushed: the caller does not notice, the operator does, and once is enough."""
    installation.sign_in(ANN)
    before = installation.services.tokens.get(ANN)
    installation.services.redis.flushall()

    assert installation.services.tokens.get(ANN) == before
    with counting.statements() as statements:
        assert installation.services.tokens.get(ANN) == before

    assert installation.logged(RECOVERED) == [ANN]
    assert statements == []
    assert installation.requests == 0


def test_an_entry_lives_for_a_day_and_its_token_by_its_own_expiry(installation: Installation) -> None:
    """What Redis forgets and what is stale are two things: an entry that is still there may hold a dead token."""
    installation.sign_in(ANN)
    lifetime = installation.services.redis.pttl(_entry_key())
    assert 86_390_000 < lifetime <= 86_400_000

    installation.clock.advance(hours=2)
    token = installation.services.tokens.get(ANN)

    assert token.expires_at > installation.clock()
    assert installation.requests == 1


def test_a_stale_token_is_refreshed_once_and_by_a_consumer(installation: Installation) -> None:
    """The ledger tells who wanted it, and the next to ask gets it from Redis."""
    installation.sign_in(ANN, due=True)

    token = installation.services.tokens.get(ANN)
    with counting.statements() as statements:
        assert installation.services.tokens.get(ANN) == token

    assert installation.requests == 1
    assert statements == []
    [line] = installation.services.events.latest(account_id(ANN))
    assert (line["trigger"], line["outcome"]) == ("consumer", "refreshed")


def test_a_refresh_is_not_logged_as_a_recovery(installation: Installation) -> None:
    """The line is what operators count after a flush of Redis; here nothing was lost."""
    installation.sign_in(ANN, due=True)

    installation.services.tokens.get(ANN)

    assert installation.logged(PERSISTED) == [ANN]
    assert installation.logged(RECOVERED) == []


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
    installation: Installation, lifetime: timedelta, left: timedelta, fresh: bool
) -> None:
    """Five minutes to work with, or a quarter of a life that is shorter: else each read would be a refresh."""
    installation.sign_in(ANN, lifetime=lifetime)
    installation.clock.now += lifetime - left

    token = installation.services.tokens.get(ANN)

    assert installation.requests == (0 if fresh else 1)
    assert token.ttl(installation.clock()) == (left if fresh else lifetime)


def test_a_wish_for_more_life_is_granted_by_a_refresh(installation: Installation) -> None:
    """Who is about to download for half an hour asks for half an hour."""
    installation.sign_in(ANN)
    installation.clock.advance(minutes=31)

    installation.services.tokens.get(ANN, min_ttl=20 * MINUTE)
    assert installation.requests == 0
    token = installation.services.tokens.get(ANN, min_ttl=30 * MINUTE)

    assert token.ttl(installation.clock()) == HOUR
    assert installation.requests == 1


def test_a_wish_that_no_token_can_grant_costs_one_refresh_and_not_one_per_read(installation: Installation) -> None:
    """Asking for more than a lifetime gets the newest there is."""
    installation.sign_in(ANN)
    installation.clock.advance(minutes=31)

    tokens = [installation.services.tokens.get(ANN, min_ttl=24 * HOUR) for _ in range(3)]

    assert {token.ttl(installation.clock()) for token in tokens} == {HOUR}
    assert installation.requests == 1


def test_a_min_ttl_of_zero_is_served_any_live_token(installation: Installation) -> None:
    """A caller who is quick may use a token to its last second, never beyond."""
    installation.sign_in(ANN)
    installation.clock.advance(minutes=59, seconds=59)
    installation.services.tokens.get(ANN, min_ttl=timedelta(0))
    assert installation.requests == 0

    installation.clock.advance(seconds=1)
    installation.services.tokens.get(ANN, min_ttl=timedelta(0))

    assert installation.requests == 1


def test_an_answer_without_a_refresh_token_keeps_the_old_one_in_the_cache_too(installation: Installation) -> None:
    """An entry is whole, whoever wrote it: with it a consumer could go on while Postgres is away."""
    installation.sign_in(ANN, due=True, rotate=False)
    before = installation.account().refresh_token

    installation.services.tokens.get(ANN)

    entry = installation.cached()
    assert entry
    assert before == installation.account().refresh_token
    assert before
    assert entry.refresh_token == as_text(before)


def test_any_spelling_of_the_address_is_the_same_account(installation: Installation) -> None:
    """Sign-in pages and mail programs do not agree on capitals."""
    installation.sign_in(ANN)

    assert installation.services.tokens.get("  Ann@CONTOSO.com ") == installation.services.tokens.get(ANN)


def test_an_account_that_was_never_stored_is_unknown(installation: Installation) -> None:
    """The caller learns which, and Microsoft nothing."""
    with pytest.raises(UnknownAccount, match=BOB):
        installation.services.tokens.get(BOB)
    with pytest.raises(InvalidInput):
        installation.services.tokens.get("bob")
    with pytest.raises(UnknownAccount):
        installation.services.on_demand.refresh_now(account_id(BOB))
    assert installation.requests == 0


@pytest.mark.parametrize(
    "value",
    [b"", b"garbage", b"1 00000000000000000001 ", b"2 00000000000000000009 sealed", b"1 99999999999999999999 x"],
)
def test_a_malformed_entry_is_a_miss(installation: Installation, value: bytes) -> None:
    """Redis is shared with others and restored from anywhere: what it holds is believed only if it opens."""
    installation.sign_in(ANN)
    token = installation.services.tokens.get(ANN)
    installation.services.redis.set(_entry_key(), value)

    assert installation.services.tokens.get(ANN) == token


def test_a_key_of_another_type_is_a_miss(installation: Installation) -> None:
    """Whoever put a list there must not keep an account from its mail."""
    installation.sign_in(ANN)
    installation.services.redis.delete(_entry_key())
    installation.services.redis.lpush(_entry_key(), "x")

    assert installation.services.tokens.get(ANN).email == ANN
    assert installation.logged(RECOVERED) == []  # nothing was cached, and it is not claimed


def test_another_account_s_entry_is_a_miss(installation: Installation) -> None:
    """Who can write to Redis must not be able to hand one user another user's mailbox."""
    installation.sign_in(ANN, BOB)
    bobs = installation.services.redis.get(_entry_key(BOB))
    assert isinstance(bobs, bytes)
    installation.services.redis.set(_entry_key(ANN), bobs)

    assert installation.services.tokens.get(ANN).email == ANN


def test_an_old_entry_with_a_new_number_in_front_is_a_miss(installation: Installation) -> None:
    """The number in front is not sealed; believed, it would let a replayed entry outlive every newer one."""
    installation.sign_in(ANN)
    old = installation.services.redis.get(_entry_key())
    assert isinstance(old, bytes)
    installation.sign_in(ANN)
    newest = installation.services.tokens.get(ANN)
    installation.services.redis.set(_entry_key(), b"1 %020d " % 99 + old.split(b" ", 2)[2])

    assert installation.services.tokens.get(ANN) == newest
