"""What a reader gets while a store is away: from the other one, in a second or two, or a clear word."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.constants import ANN, BOB, MINUTE, RECOVERED
from tests.integration.installation import Installation
from worker.devkit.stack import Stack
from worker.domain.errors import AccountInactive, Unavailable


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    """Generous, because the machine may be busy; who does not give up a store waits for three quarters of a minute."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def test_while_redis_is_away_postgres_serves(installation: Installation, stores: Stack) -> None:
    """And keeps serving at a database's pace; back again, Redis gets the entry by the next read."""
    installation.sign_in(ANN)
    stores.valkey.stop()

    with _no_longer_than(15):
        tokens = [installation.services.tokens.get(ANN) for _ in range(3)]
    assert installation.logged(RECOVERED) == []
    stores.valkey.start()
    installation.services.redis.flushall()

    assert {installation.services.tokens.get(ANN), *tokens} == {tokens[0]}
    assert installation.cached() is not None
    assert installation.logged(RECOVERED) == [ANN]
    assert installation.requests == 0


def test_while_redis_is_away_a_reader_refreshes_under_the_lease(installation: Installation, stores: Stack) -> None:
    """No broker, so no schedule: who needs a token gets it himself, once, and Postgres keeps it."""
    installation.sign_in(ANN, due=True, strict=True)
    stores.valkey.stop()

    first, second = (services.tokens.get(ANN) for services in (installation.services, installation.another_process()))

    assert first == second
    assert installation.requests == 1
    assert installation.account().version == 2


def test_a_redis_that_hangs_holds_a_reader_up_for_seconds_at_most(installation: Installation, stores: Stack) -> None:
    """A network that swallows packets refuses nothing; only patience that ends does."""
    installation.sign_in(ANN)
    stores.valkey.pause()
    try:
        with _no_longer_than(20):
            token = installation.services.tokens.get(ANN)
    finally:
        stores.valkey.resume()

    assert token.email == ANN


def test_while_postgres_is_away_redis_serves(installation: Installation, stores: Stack) -> None:
    """A fail-over takes a minute; mail goes on."""
    installation.sign_in(ANN)
    stores.postgres.stop()

    with _no_longer_than(15):
        token = installation.services.tokens.get(ANN)

    assert token.email == ANN


def test_while_postgres_is_away_a_token_is_served_to_its_end(installation: Installation, stores: Stack) -> None:
    """No refresh happens ahead of Postgres. A dead token is never served: the error says what is unavailable."""
    installation.sign_in(ANN)
    stores.postgres.stop()

    installation.clock.advance(minutes=59)
    assert installation.services.tokens.get(ANN).ttl(installation.clock()) == MINUTE
    assert installation.services.tokens.get(ANN, min_ttl=30 * MINUTE).ttl(installation.clock()) == MINUTE
    installation.clock.advance(minutes=1)

    with pytest.raises(Unavailable, match="cached token has expired or was rejected, and the database cannot be used"):
        installation.services.tokens.get(ANN)
    stores.postgres.start()
    assert installation.services.tokens.get(ANN).version == 2
    assert installation.requests == 1


def test_while_postgres_is_away_a_rejected_token_is_not_replaced(installation: Installation, stores: Stack) -> None:
    """Whether it is rejected again and again only the ledger says."""
    installation.sign_in(ANN)
    stores.postgres.stop()

    with pytest.raises(Unavailable, match="expired or was rejected"):
        installation.services.tokens.report_rejected(ANN, 1)

    assert installation.requests == 0


def test_while_postgres_is_away_what_is_not_cached_is_unavailable(installation: Installation, stores: Stack) -> None:
    """Not unknown, which would make an application forget the account."""
    installation.sign_in(ANN)
    installation.services.redis.flushall()
    stores.postgres.stop()

    for email in (ANN, BOB):
        with pytest.raises(Unavailable) as raised:
            installation.services.tokens.get(email)
        assert "app:" not in str(raised.value)


def test_while_both_are_away_a_reader_learns_it_quickly(installation: Installation, stores: Stack) -> None:
    """A page that hangs is worse than one that says so."""
    installation.sign_in(ANN)
    stores.postgres.stop()
    stores.valkey.stop()

    with _no_longer_than(15), pytest.raises(Unavailable):
        installation.services.tokens.get(ANN)

    stores.postgres.start()
    stores.valkey.start()
    assert installation.services.tokens.get(ANN).email == ANN


def test_a_disconnected_account_gives_no_token_while_postgres_is_away(
    installation: Installation, stores: Stack
) -> None:
    """The cache alone must know that its user has withdrawn."""
    installation.sign_in(ANN)
    installation.services.accounts.disconnect(ANN)
    stores.postgres.stop()

    for _ in range(2):
        with pytest.raises(AccountInactive):
            installation.services.tokens.get(ANN)
        installation.clock.advance(hours=1)  # a note that nobody can refresh is still the best there is


def test_a_reader_whose_answer_postgres_cannot_take_gets_its_token(installation: Installation, stores: Stack) -> None:
    """It was granted, it is safe in the outbox, and the reader has waited long enough."""
    installation.sign_in(ANN, due=True, strict=True)

    with installation.in_flight(lambda: installation.services.tokens.get(ANN)) as reading:
        stores.postgres.stop()

    assert reading.result().ttl(installation.clock()) > 50 * MINUTE
    stores.postgres.start()
    assert installation.refresh_due() == {"claimed": 0}
    installation.services.redis.flushall()
    assert installation.services.tokens.get(ANN) == reading.result()
    assert installation.requests == 1
