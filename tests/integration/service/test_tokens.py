"""A live access token comes from Redis, else from Postgres, else from one refresh."""

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
    """Consumers read a token before every mailbox that they open, which must not reach Postgres."""
    installation.sign_in(ANN)

    with counting.statements() as statements:
        token = installation.services.tokens.get(ANN)

    assert statements == []
    assert (token.email, token.expires_at) == (ANN, installation.clock() + HOUR)
    assert jwt.decode(token.value, options={"verify_signature": False})["upn"] == ANN
    assert installation.requests == 0


def test_a_miss_is_rebuilt_from_postgres_and_logged(installation: Installation) -> None:
    """After a flush of Redis the caller notices nothing, and the operator sees one log line."""
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
    """Expiry in Redis and the token's expiry are independent. An entry that still exists may hold an expired token."""
    installation.sign_in(ANN)
    lifetime = installation.services.redis.pttl(_entry_key())
    assert 86_390_000 < lifetime <= 86_400_000

    installation.clock.advance(hours=2)
    token = installation.services.tokens.get(ANN)

    assert token.expires_at > installation.clock()
    assert installation.requests == 1


def test_a_stale_token_is_refreshed_once_and_by_a_consumer(installation: Installation) -> None:
    """The event names the consumer as the trigger, and the next caller reads the token from Redis."""
    installation.sign_in(ANN, due=True)

    token = installation.services.tokens.get(ANN)
    with counting.statements() as statements:
        assert installation.services.tokens.get(ANN) == token

    assert installation.requests == 1
    assert statements == []
    [line] = installation.services.events.latest(account_id(ANN))
    assert (line["trigger"], line["outcome"]) == ("consumer", "refreshed")


def test_a_refresh_is_not_logged_as_a_recovery(installation: Installation) -> None:
    """Operators count this log line after a flush of Redis. Here nothing was lost."""
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
def test_by_default_a_token_is_served_until_it_is_about_to_expire(
    installation: Installation, lifetime: timedelta, left: timedelta, fresh: bool
) -> None:
    """Five minutes must be left, or a quarter of a shorter life. Otherwise each read would be a refresh."""
    installation.sign_in(ANN, lifetime=lifetime)
    installation.clock.now += lifetime - left

    token = installation.services.tokens.get(ANN)

    assert installation.requests == (0 if fresh else 1)
    assert token.ttl(installation.clock()) == (left if fresh else lifetime)


def test_a_longer_min_ttl_causes_a_refresh(installation: Installation) -> None:
    """A caller that downloads for half an hour requires half an hour."""
    installation.sign_in(ANN)
    installation.clock.advance(minutes=31)

    installation.services.tokens.get(ANN, min_ttl=20 * MINUTE)
    assert installation.requests == 0
    token = installation.services.tokens.get(ANN, min_ttl=30 * MINUTE)

    assert token.ttl(installation.clock()) == HOUR
    assert installation.requests == 1


def test_a_min_ttl_that_no_token_has_causes_one_refresh(installation: Installation) -> None:
    """The caller gets the newest token if it requires more than a whole lifetime."""
    installation.sign_in(ANN)
    installation.clock.advance(minutes=31)

    tokens = [installation.services.tokens.get(ANN, min_ttl=24 * HOUR) for _ in range(3)]

    assert {token.ttl(installation.clock()) for token in tokens} == {HOUR}
    assert installation.requests == 1


def test_a_min_ttl_of_zero_is_served_any_live_token(installation: Installation) -> None:
    """A fast caller may use a token up to its last second, but never beyond."""
    installation.sign_in(ANN)
    installation.clock.advance(minutes=59, seconds=59)
    installation.services.tokens.get(ANN, min_ttl=timedelta(0))
    assert installation.requests == 0

    installation.clock.advance(seconds=1)
    installation.services.tokens.get(ANN, min_ttl=timedelta(0))

    assert installation.requests == 1


def test_a_response_without_a_refresh_token_keeps_the_old_one_in_the_entry(installation: Installation) -> None:
    """Each write replaces the whole entry."""
    installation.sign_in(ANN, due=True, rotate=False)
    before = installation.account().refresh_token

    installation.services.tokens.get(ANN)

    entry = installation.cached()
    assert entry
    assert before == installation.account().refresh_token
    assert before
    assert entry.refresh_token == as_text(before)


def test_any_spelling_of_the_address_is_the_same_account(installation: Installation) -> None:
    """Sign-in pages and mail programs capitalize addresses differently."""
    installation.sign_in(ANN)

    assert installation.services.tokens.get("  Ann@CONTOSO.com ") == installation.services.tokens.get(ANN)


def test_an_account_that_was_never_stored_is_unknown(installation: Installation) -> None:
    """The error says which account, and Microsoft receives no request."""
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
    """Other programs may write to Redis. A value counts only if it can be opened."""
    installation.sign_in(ANN)
    token = installation.services.tokens.get(ANN)
    installation.services.redis.set(_entry_key(), value)

    assert installation.services.tokens.get(ANN) == token


def test_a_key_of_another_type_is_a_miss(installation: Installation) -> None:
    """A list under the key must not block the account."""
    installation.sign_in(ANN)
    installation.services.redis.delete(_entry_key())
    installation.services.redis.lpush(_entry_key(), "x")

    assert installation.services.tokens.get(ANN).email == ANN
    assert installation.logged(RECOVERED) == [ANN]  # in the place of the list


def test_another_account_s_entry_is_a_miss(installation: Installation) -> None:
    """A writer to Redis must not be able to give one user access to another user's mailbox."""
    installation.sign_in(ANN, BOB)
    bobs = installation.services.redis.get(_entry_key(BOB))
    assert isinstance(bobs, bytes)
    installation.services.redis.set(_entry_key(ANN), bobs)

    assert installation.services.tokens.get(ANN).email == ANN


def test_an_old_entry_with_a_new_number_in_front_is_a_miss(installation: Installation) -> None:
    """The version in front is not sealed. If it counted, a replayed entry would replace every newer one."""
    installation.sign_in(ANN)
    old = installation.services.redis.get(_entry_key())
    assert isinstance(old, bytes)
    installation.sign_in(ANN)
    newest = installation.services.tokens.get(ANN)
    installation.services.redis.set(_entry_key(), b"1 %020d " % 99 + old.split(b" ", 2)[2])

    assert installation.services.tokens.get(ANN) == newest
