"""What a reader gets while a store is away: from the other one, in a second or two, or a clear word."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.service.house import ANN, BOB, MINUTE, RECOVERED, House
from worker.devkit.emulator import RawAnswer
from worker.devkit.stack import Stack
from worker.domain.errors import AccountInactive, BackingOff, Unavailable


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    """Generous, because the machine may be busy; who does not give up a store waits for three quarters of a minute."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def test_while_redis_is_away_postgres_serves(house: House, stores: Stack) -> None:
    """And keeps serving at a database's pace; back again, Redis is told what it has missed."""
    house.sign_in(ANN)
    stores.valkey.stop()

    with _no_longer_than(15):
        tokens = [house.services.tokens.get(ANN) for _ in range(3)]
    assert house.told(RECOVERED) == []
    stores.valkey.start()
    house.services.redis.flushall()

    assert {house.services.tokens.get(ANN), *tokens} == {tokens[0]}
    assert house.cached() is not None
    assert house.told(RECOVERED) == []
    assert house.asked() == 0


def test_while_redis_is_away_a_reader_refreshes_under_the_lease(house: House, stores: Stack) -> None:
    """No broker, so no schedule: who needs a token gets it himself, once, and Postgres keeps it."""
    house.enrol(ANN, strict=True)
    stores.valkey.stop()

    first, second = (services.tokens.get(ANN) for services in (house.services, house.another()))

    assert first == second
    assert house.asked() == 1
    assert house.account().version == 2


def test_a_redis_that_hangs_holds_a_reader_up_for_seconds_at_most(house: House, stores: Stack) -> None:
    """A network that swallows packets refuses nothing; only patience that ends does."""
    house.sign_in(ANN)
    stores.valkey.pause()
    try:
        with _no_longer_than(20):
            token = house.services.tokens.get(ANN)
    finally:
        stores.valkey.resume()

    assert token.email == ANN


def test_while_postgres_is_away_redis_serves(house: House, stores: Stack) -> None:
    """A fail-over takes a minute; mail goes on."""
    house.sign_in(ANN)
    stores.postgres.stop()

    with _no_longer_than(15):
        token = house.services.tokens.get(ANN)

    assert token.email == ANN


def test_while_postgres_and_microsoft_are_away_a_token_is_served_to_its_end(house: House, stores: Stack) -> None:
    """Stale is better than nothing, and dead is nothing."""
    house.sign_in(ANN)
    house.emulator.add_fault(RawAnswer(b"", 503))
    stores.postgres.stop()

    house.clock.advance(minutes=59)
    assert house.services.tokens.get(ANN).ttl(house.clock()) == MINUTE
    assert house.services.tokens.get(ANN, min_ttl=30 * MINUTE).ttl(house.clock()) == MINUTE
    house.clock.advance(minutes=1)

    with pytest.raises(BackingOff):
        house.services.tokens.get(ANN)
    stores.postgres.start()
    house.emulator.clear_faults()
    assert house.services.tokens.get(ANN).version == 2
    assert house.asked() == 2


def test_while_postgres_is_away_what_is_not_cached_is_unavailable(house: House, stores: Stack) -> None:
    """Not unknown, which would make an application forget the account."""
    house.sign_in(ANN)
    house.services.redis.flushall()
    stores.postgres.stop()

    for email in (ANN, BOB):
        with pytest.raises(Unavailable) as raised:
            house.services.tokens.get(email)
        assert "app:" not in str(raised.value)


def test_while_both_are_away_a_reader_learns_it_quickly(house: House, stores: Stack) -> None:
    """A page that hangs is worse than one that says so."""
    house.sign_in(ANN)
    stores.postgres.stop()
    stores.valkey.stop()

    with _no_longer_than(15), pytest.raises(Unavailable):
        house.services.tokens.get(ANN)

    stores.postgres.start()
    stores.valkey.start()
    assert house.services.tokens.get(ANN).email == ANN


def test_a_disconnected_account_gives_no_token_while_postgres_is_away(house: House, stores: Stack) -> None:
    """The cache alone must know that its user has withdrawn."""
    house.sign_in(ANN)
    house.services.accounts.disconnect(ANN)
    stores.postgres.stop()

    for _ in range(2):
        with pytest.raises(AccountInactive):
            house.services.tokens.get(ANN)
        house.clock.advance(hours=1)  # a note that nobody can refresh is still the best there is


def test_a_reader_whose_answer_postgres_cannot_take_gets_its_token(house: House, stores: Stack) -> None:
    """It was granted, it is safe in the outbox, and the reader has waited long enough."""
    house.enrol(ANN, strict=True)

    with house.in_flight(lambda: house.services.tokens.get(ANN)) as reading:
        stores.postgres.stop()

    assert reading.result().ttl(house.clock()) > 50 * MINUTE
    stores.postgres.start()
    assert house.services.refresher.refresh_due() == {"claimed": 0}
    house.services.redis.flushall()
    assert house.services.tokens.get(ANN) == reading.result()
    assert house.asked() == 1
