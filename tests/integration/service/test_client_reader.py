"""A consumer with no more than it needs: it reads, and asks the workers; no secret of the app, no refresh token."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.integration.service import counting
from tests.integration.service.house import ANN, BOB, HOUR, MINUTE, House
from tests.integration.service.workers import queued, working
from worker.broker import ON_DEMAND
from worker.client import (
    AccessToken,
    AccountInactive,
    BackingOff,
    ClientMisconfigured,
    ConfigurationError,
    NeedsUser,
    TokenClient,
    TokenRefused,
    Unavailable,
    UnknownAccount,
)
from worker.devkit.emulator import Registration, oauth_error
from worker.devkit.stack import Stack
from worker.domain.account import account_id
from worker.domain.errors import UnknownKey
from worker.settings import ReaderSettings
from worker.vault import Purpose, Vault, format_access_keys

_SELECT = "reader"


def _reader(house: House, database_url: str | None = None) -> TokenClient:
    settings = ReaderSettings.model_validate(
        {
            "redis_url": house.settings.redis_url,
            "database_url": database_url,
            "access_keys": format_access_keys(house.settings.keys),
        }
    )
    return TokenClient(settings, utcnow=house.clock)


@pytest.fixture(name="reader")
def _without_postgres(house: House) -> Iterator[TokenClient]:
    """The smallest: Redis and an access key."""
    with _reader(house) as client:
        yield client


@pytest.fixture(name="selecting")
def _with_postgres(house: House) -> Iterator[TokenClient]:
    """With Postgres to fall back on, and the right to SELECT."""
    url = house.settings.database_url.get_secret_value()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [_SELECT]).fetchone():
            connection.execute(f"CREATE ROLE {_SELECT} LOGIN PASSWORD 'throwaway'")
        connection.execute(f"GRANT SELECT ON mail_credentials, refresh_events TO {_SELECT}")
    with _reader(house, f"postgresql+psycopg://{_SELECT}:throwaway@{url.rpartition('@')[2]}") as client:
        yield client


def test_what_is_cached_is_read_in_one_command(house: House, reader: TokenClient) -> None:
    """Token and servers; nobody is asked."""
    house.sign_in(ANN)
    reader.get(ANN)
    house.clock.advance(seconds=11)

    with counting.sql() as statements, counting.commands(house.services.redis) as commands:
        token, account = reader.get(ANN), reader.load(ANN)

    assert token == house.services.tokens.get(ANN) == account.token
    assert account.servers.smtp_host == "smtp.office365.com"
    assert commands["get"] == 1
    assert statements == []
    assert queued(house.services.redis) == []


def test_its_key_opens_no_refresh_token(house: House) -> None:
    """Not from Postgres, not from the cache; and the key itself is not the master key."""
    house.sign_in(ANN)
    settings = ReaderSettings.model_validate(
        {"redis_url": house.settings.redis_url, "access_keys": format_access_keys(house.settings.keys)}
    )
    vault, entry, stored = Vault(settings.keys), house.cached(), house.account()
    assert entry
    assert entry.token
    assert stored.access_token

    for sealed in (entry.refresh_token, stored.refresh_token):
        assert sealed
        with pytest.raises(UnknownKey, match="WORKER_ACCESS_KEYS"):
            vault.open(sealed, stored.id, Purpose.REFRESH_TOKEN)
    assert vault.open(stored.access_token, stored.id, Purpose.ACCESS_TOKEN) == entry.token.secret
    master = house.settings.keys[0].material
    assert all(master not in key.material for key in settings.keys)


def test_a_stale_token_is_refreshed_by_a_worker_once_however_many_ask(house: House, reader: TokenClient) -> None:
    """Threads and processes leave one message, with an id and a number in it and nothing else."""
    house.enrol(ANN, strict=True)
    with _reader(house) as other, ThreadPoolExecutor(16) as pool:
        asking = [pool.submit((other if number % 2 else reader).get, ANN, min_ttl=1800) for number in range(16)]
        with working(house.services) as workers:
            tokens = {future.result() for future in asking}

    assert {token.version for token in tokens} == {2}
    assert workers.asked == [[str(account_id(ANN)), 1800.0, None]]
    assert house.asked() == 1


def test_a_flushed_cache_is_filled_by_a_worker(house: House, reader: TokenClient) -> None:
    """Without a refresh: Postgres has what was lost."""
    house.sign_in(ANN)
    house.services.redis.flushall()

    with working(house.services):
        assert reader.get(ANN).version == 1
    assert house.asked() == 0


def test_with_select_alone_it_falls_back_on_postgres(house: House, selecting: TokenClient) -> None:
    """And fills the cache itself; the workers need not know."""
    house.sign_in(ANN)
    house.enrol(BOB)
    house.services.accounts.pause(BOB)
    house.services.redis.flushall()

    found = selecting.get_many([ANN, BOB, "nobody@contoso.com"])

    assert [type(each) for each in found.values()] == [AccessToken, AccountInactive, UnknownAccount]
    assert house.cached()
    assert queued(house.services.redis) == []


def test_a_refused_token_is_replaced_by_a_worker(house: House, reader: TokenClient) -> None:
    """With the version in the message; and the second refusal is told as what it is."""
    house.sign_in(ANN)
    with working(house.services) as workers:
        token = reader.report_rejected(ANN, 1)
        assert reader.report_rejected(ANN, 1) == token
        with pytest.raises(TokenRefused):
            reader.report_rejected(ANN, token.version)

    assert token.version == 2
    assert workers.asked == [[str(account_id(ANN)), None, 1], [str(account_id(ANN)), None, 2]]
    assert house.asked() == 1


def test_what_is_wrong_reaches_the_reader_as_the_same_error(house: House, reader: TokenClient) -> None:
    """Whatever it is: of the account, of the app, or of the process that was to ask."""
    house.enrol(ANN, BOB)
    house.emulator.add_fault(oauth_error("AADSTS50076", claims="{}"), ANN)
    house.emulator.add_fault(oauth_error("AADSTS90055", retry_after=90), BOB)
    with working(house.services) as workers:
        with pytest.raises(NeedsUser) as raised:
            reader.get(ANN)
        for _ in range(100):
            with pytest.raises(BackingOff):
                reader.get(BOB)
        with pytest.raises(UnknownAccount, match="nobody"):
            reader.get("nobody@contoso.com")

    assert raised.value.claims == "{}"
    assert len(workers.asked) == 3
    assert house.asked() == 2


def test_a_breaker_that_is_open_is_told_at_once(house: House, reader: TokenClient) -> None:
    """It stands on no row; the worker notes it for a few seconds, and a token that lives is served meanwhile."""
    others = [f"user{number}@contoso.com" for number in range(3)]
    house.sign_in(BOB)
    house.clock.advance(minutes=30)
    house.enrol(*others)
    house.emulator.registrations.register(Registration(secrets=("another",)))
    house.services.refresher.refresh_due()
    house.enrol(ANN)
    house.clock.advance(seconds=1)

    with working(house.services) as workers:
        for _ in range(2):
            with pytest.raises(ClientMisconfigured):
                reader.get(ANN)
            began = time.monotonic()
            assert reader.get(BOB, min_ttl=3000).version == 1
            assert time.monotonic() - began < 3, "without an answer it would be longer"
    assert len(workers.asked) == 2


def test_without_a_worker_a_token_that_lives_is_served_after_a_moment(house: House, reader: TokenClient) -> None:
    """And asking leaves one message, that ends by itself."""
    house.sign_in(ANN)
    house.clock.advance(minutes=57)

    assert reader.get(ANN).ttl(house.clock()) == 3 * MINUTE

    assert queued(house.services.redis) == [[str(account_id(ANN)), None, None]]


def test_a_question_that_could_not_be_sent_is_asked_again(house: House, reader: TokenClient) -> None:
    """By whoever comes next, and not only when the note of it has ended."""
    house.enrol(ANN)
    house.services.redis.set(ON_DEMAND, "no queue")
    with pytest.raises(Unavailable, match="cannot be asked"):
        reader.get(ANN)
    house.services.redis.delete(ON_DEMAND)

    with working(house.services) as workers:
        assert reader.get(ANN).version == 2
    assert len(workers.asked) == 1


def test_while_redis_is_away_postgres_serves_and_nobody_can_be_asked(
    house: House, selecting: TokenClient, reader: TokenClient, stores: Stack
) -> None:
    """Each says in seconds what it can."""
    house.sign_in(ANN)
    house.enrol(BOB)
    stores.valkey.stop()

    assert selecting.get(ANN).ttl(house.clock()) == HOUR
    for client, email in ((selecting, BOB), (reader, ANN)):
        with pytest.raises(Unavailable, match=r"cannot be asked|Redis"):
            client.get(email)


def test_while_postgres_is_away_the_workers_bridge(house: House, selecting: TokenClient, stores: Stack) -> None:
    """What a consumer with all its keys does itself, a worker does for one that only reads."""
    house.sign_in(ANN)
    house.clock.advance(minutes=58)
    stores.postgres.stop()

    with working(house.services):
        assert selecting.get(ANN).version == 2
    assert house.asked() == 1


def test_what_it_cannot_do_it_says_with_what_it_would_take(house: House, reader: TokenClient) -> None:
    """Before anything is changed."""
    house.sign_in(ANN)

    with pytest.raises(ConfigurationError, match="WORKER_ENCRYPTION_KEYS"):
        reader.save(BOB, refresh_token="a-refresh-token")
    with pytest.raises(ConfigurationError, match="WORKER_ENCRYPTION_KEYS"):
        reader.disconnect(ANN)
    with pytest.raises(ConfigurationError, match="WORKER_DATABASE_URL"):
        next(reader.watch())
    assert reader.get(ANN).version == 1


def test_it_listens_if_it_has_postgres(house: House, selecting: TokenClient) -> None:
    """Who shows users what to do need not be who refreshes."""
    house.enrol(ANN)
    house.emulator.add_fault(oauth_error("AADSTS50173"))
    house.services.refresher.refresh_due()

    assert next(selecting.watch()).email == ANN
