"""A reader during the outage of a store gets its token from the other store, or a clear error, within seconds."""

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
    """The limit is generous for a busy machine. A reader that does not give a store up waits for 45 seconds."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def test_while_redis_is_down_tokens_are_read_from_postgres(installation: Installation, stores: Stack) -> None:
    """Each read costs a query. When Redis is back, the next read writes the entry."""
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


def test_while_redis_is_down_a_reader_refreshes_under_the_lease(installation: Installation, stores: Stack) -> None:
    """Without a broker there is no schedule. The reader refreshes the token itself, once, and Postgres stores it."""
    installation.sign_in(ANN, due=True, strict=True)
    stores.valkey.stop()

    first, second = (services.tokens.get(ANN) for services in (installation.services, installation.another_process()))

    assert first == second
    assert installation.requests == 1
    assert installation.account().version == 2


def test_a_redis_that_hangs_delays_a_reader_for_seconds_at_most(installation: Installation, stores: Stack) -> None:
    """A network that drops packets refuses no connection, so only a timeout ends the wait."""
    installation.sign_in(ANN)
    stores.valkey.pause()
    try:
        with _no_longer_than(20):
            token = installation.services.tokens.get(ANN)
    finally:
        stores.valkey.resume()

    assert token.email == ANN


def test_while_postgres_is_down_tokens_are_read_from_redis(installation: Installation, stores: Stack) -> None:
    """A fail-over of Postgres takes a minute, and mail must go on."""
    installation.sign_in(ANN)
    stores.postgres.stop()

    with _no_longer_than(15):
        token = installation.services.tokens.get(ANN)

    assert token.email == ANN


def test_while_postgres_is_down_a_token_is_served_until_it_expires(installation: Installation, stores: Stack) -> None:
    """No refresh is possible without Postgres. An expired token is never served.

    The error says what is unavailable.
    """
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


def test_while_postgres_is_down_a_rejected_token_is_not_replaced(installation: Installation, stores: Stack) -> None:
    """Only refresh_events shows whether tokens are rejected repeatedly."""
    installation.sign_in(ANN)
    stores.postgres.stop()

    with pytest.raises(Unavailable, match="expired or was rejected"):
        installation.services.tokens.report_rejected(ANN, 1)

    assert installation.requests == 0


def test_while_postgres_is_down_an_account_without_an_entry_is_unavailable(
    installation: Installation, stores: Stack
) -> None:
    """The error must not say that the account is unknown, or an application would forget it."""
    installation.sign_in(ANN)
    installation.services.redis.flushall()
    stores.postgres.stop()

    for email in (ANN, BOB):
        with pytest.raises(Unavailable) as raised:
            installation.services.tokens.get(email)
        assert "app:" not in str(raised.value)


def test_while_both_stores_are_down_a_reader_gets_an_error_quickly(installation: Installation, stores: Stack) -> None:
    """A slow page is worse than an error."""
    installation.sign_in(ANN)
    stores.postgres.stop()
    stores.valkey.stop()

    with _no_longer_than(15), pytest.raises(Unavailable):
        installation.services.tokens.get(ANN)

    stores.postgres.start()
    stores.valkey.start()
    assert installation.services.tokens.get(ANN).email == ANN


def test_a_disconnected_account_has_no_token_while_postgres_is_down(installation: Installation, stores: Stack) -> None:
    """The cache alone must know that the user has disconnected the account."""
    installation.sign_in(ANN)
    installation.services.accounts.disconnect(ANN)
    stores.postgres.stop()

    for _ in range(2):
        with pytest.raises(AccountInactive):
            installation.services.tokens.get(ANN)
        installation.clock.advance(hours=1)  # the cached failure stays valid while Postgres cannot be read


def test_a_reader_gets_its_token_although_postgres_cannot_store_it(installation: Installation, stores: Stack) -> None:
    """The token was issued and is safe in the outbox, and the reader has waited long enough."""
    installation.sign_in(ANN, due=True, strict=True)

    with installation.in_flight(lambda: installation.services.tokens.get(ANN)) as reading:
        stores.postgres.stop()

    assert reading.result().ttl(installation.clock()) > 50 * MINUTE
    stores.postgres.start()
    assert installation.refresh_due() == {"leased": 0}
    installation.services.redis.flushall()
    assert installation.services.tokens.get(ANN) == reading.result()
    assert installation.requests == 1
