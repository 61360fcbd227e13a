"""A consumer with minimal rights: it reads, and delegates refreshes to workers.

It has no app secret and no refresh token.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.constants import ANN, BOB, HOUR, MINUTE
from tests.integration import counting
from tests.integration.installation import Installation
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
from worker.domain.binding import binding_of
from worker.domain.errors import UnknownKey
from worker.domain.token import as_text
from worker.settings import ReaderSettings
from worker.vault import Purpose, Vault, format_access_keys

_SELECT = "reader"


def _reader(installation: Installation, database_url: str | None = None) -> TokenClient:
    settings = ReaderSettings.model_validate(
        {
            "redis_url": installation.settings.redis_url,
            "database_url": database_url,
            "access_keys": format_access_keys(installation.settings.keys),
        }
    )
    return TokenClient(settings, utcnow=installation.clock)


@pytest.fixture(name="reader")
def _without_postgres(installation: Installation) -> Iterator[TokenClient]:
    """The minimum: Redis and an access key."""
    with _reader(installation) as client:
        yield client


@pytest.fixture(name="selecting")
def _with_postgres(installation: Installation) -> Iterator[TokenClient]:
    """It may also fall back on Postgres, with the right to SELECT."""
    url = installation.settings.database_url.get_secret_value()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [_SELECT]).fetchone():
            connection.execute(f"CREATE ROLE {_SELECT} LOGIN PASSWORD 'throwaway'")
        connection.execute(f"GRANT SELECT ON mail_credentials, refresh_events, refresh_successes TO {_SELECT}")
    with _reader(installation, f"postgresql+psycopg://{_SELECT}:throwaway@{url.rpartition('@')[2]}") as client:
        yield client


def test_a_cached_token_is_read_in_one_command(installation: Installation, reader: TokenClient) -> None:
    """The entry has the token and the servers, so no message is sent."""
    installation.sign_in(ANN)
    reader.get(ANN)
    installation.clock.advance(seconds=11)

    with counting.statements() as statements, counting.commands(installation.services.redis) as commands:
        token, account = reader.get(ANN), reader.load(ANN)

    assert token == installation.services.tokens.get(ANN) == account.token
    assert account.servers.smtp_host == "smtp.office365.com"
    assert commands["getrange"] == 1
    assert statements == []
    assert queued(installation.services.redis) == []


def test_an_access_key_opens_no_refresh_token(installation: Installation) -> None:
    """Neither from Postgres nor from the cache, and the access key is not the full key."""
    installation.sign_in(ANN)
    settings = ReaderSettings.model_validate(
        {"redis_url": installation.settings.redis_url, "access_keys": format_access_keys(installation.settings.keys)}
    )
    vault, entry, stored = Vault(settings.keys), installation.cached(), installation.account()
    assert entry
    assert entry.token
    assert stored.access_token

    assert stored.refresh_token
    assert entry.refresh_token == as_text(stored.refresh_token)
    with pytest.raises(UnknownKey, match="WORKER_ACCESS_KEYS"):
        vault.open(stored.refresh_token, stored.id, Purpose.REFRESH_TOKEN, binding_of(stored))
    assert vault.open(stored.access_token, stored.id, Purpose.ACCESS_TOKEN, binding_of(stored)) == entry.token.secret
    master = installation.settings.keys[0].material
    assert all(master not in key.material for key in settings.keys)


def test_a_stale_token_is_refreshed_by_a_worker_once(installation: Installation, reader: TokenClient) -> None:
    """Threads and processes leave one message, which holds an id and a number and nothing else."""
    installation.sign_in(ANN, due=True, strict=True)
    with _reader(installation) as other, ThreadPoolExecutor(16) as pool:
        asking = [pool.submit((other if number % 2 else reader).get, ANN, min_ttl=1800) for number in range(16)]
        with working(installation.services) as workers:
            tokens = {future.result() for future in asking}

    assert {token.version for token in tokens} == {2}
    assert workers.received == [[str(account_id(ANN)), 1800.0, None]]
    assert installation.requests == 1


def test_a_flushed_cache_is_filled_by_a_worker(installation: Installation, reader: TokenClient) -> None:
    """No refresh is needed, because Postgres has the lost entry."""
    installation.sign_in(ANN)
    installation.services.redis.flushall()

    with working(installation.services):
        assert reader.get(ANN).version == 1
    assert installation.requests == 0


def test_with_select_alone_it_falls_back_on_postgres(installation: Installation, selecting: TokenClient) -> None:
    """The reader fills the cache itself, without the workers."""
    installation.sign_in(ANN)
    installation.sign_in(BOB, due=True)
    installation.services.accounts.pause(BOB)
    installation.services.redis.flushall()

    found = selecting.get_many([ANN, BOB, "nobody@contoso.com"])

    assert [type(each) for each in found.values()] == [AccessToken, AccountInactive, UnknownAccount]
    assert installation.cached()
    assert queued(installation.services.redis) == []


def test_a_rejected_token_is_replaced_by_a_worker(installation: Installation, reader: TokenClient) -> None:
    """The message has the version. The second rejection raises an error of its own."""
    installation.sign_in(ANN)
    with working(installation.services) as workers:
        token = reader.report_rejected(ANN, 1)
        assert reader.report_rejected(ANN, 1) == token
        with pytest.raises(TokenRefused):
            reader.report_rejected(ANN, token.version)

    assert token.version == 2
    assert workers.received == [[str(account_id(ANN)), None, 1], [str(account_id(ANN)), None, 2]]
    assert installation.requests == 1


def test_a_failure_reaches_the_reader_as_the_same_error(installation: Installation, reader: TokenClient) -> None:
    """The same holds for a failure of the account, of the app registration, and of the worker's process."""
    installation.sign_in(ANN, BOB, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS50076", claims="{}"), ANN)
    installation.emulator.add_fault(oauth_error("AADSTS90055", retry_after=90), BOB)
    with working(installation.services) as workers:
        with pytest.raises(NeedsUser) as raised:
            reader.get(ANN)
        for _ in range(100):
            with pytest.raises(BackingOff):
                reader.get(BOB)
        with pytest.raises(UnknownAccount, match="nobody"):
            reader.get("nobody@contoso.com")

    assert raised.value.claims == "{}"
    assert len(workers.received) == 3
    assert installation.requests == 2


def test_an_open_breaker_is_reported_at_once(installation: Installation, reader: TokenClient) -> None:
    """It is in no row. The worker caches it for a few seconds, and a live token is served meanwhile."""
    others = [f"user{number}@contoso.com" for number in range(3)]
    installation.sign_in(BOB)
    installation.clock.advance(minutes=30)
    installation.sign_in(*others, due=True)
    installation.emulator.registrations.register(Registration(secrets=("another",)))
    installation.refresh_due()
    installation.sign_in(ANN, due=True)
    installation.clock.advance(seconds=1)

    with working(installation.services) as workers:
        for _ in range(2):
            with pytest.raises(ClientMisconfigured):
                reader.get(ANN)
            assert reader.get(BOB, min_ttl=3000).version == 1
    assert len(workers.received) == 2


def test_without_a_worker_a_live_token_is_served_after_a_moment(
    installation: Installation, reader: TokenClient
) -> None:
    """The request leaves one message, which expires."""
    installation.sign_in(ANN)
    installation.clock.advance(minutes=57)

    assert reader.get(ANN).ttl(installation.clock()) == 3 * MINUTE

    assert queued(installation.services.redis) == [[str(account_id(ANN)), None, None]]


def test_a_message_that_could_not_be_sent_is_sent_again(installation: Installation, reader: TokenClient) -> None:
    """The next caller sends it again, without waiting for the request's mark to expire."""
    installation.sign_in(ANN, due=True)
    installation.services.redis.set(ON_DEMAND, "no queue")
    with pytest.raises(Unavailable, match="cannot be asked"):
        reader.get(ANN)
    installation.services.redis.delete(ON_DEMAND)

    with working(installation.services) as workers:
        assert reader.get(ANN).version == 2
    assert len(workers.received) == 1


def test_while_redis_is_down_postgres_serves_and_no_worker_can_be_reached(
    installation: Installation, selecting: TokenClient, reader: TokenClient, stores: Stack
) -> None:
    """Each of them reports within seconds what is possible."""
    installation.sign_in(ANN)
    installation.sign_in(BOB, due=True)
    stores.valkey.stop()

    assert selecting.get(ANN).ttl(installation.clock()) == HOUR
    for client, email in ((selecting, BOB), (reader, ANN)):
        with pytest.raises(Unavailable, match=r"cannot be asked|Redis"):
            client.get(email)


def test_while_postgres_is_down_the_old_token_is_served(
    installation: Installation, selecting: TokenClient, stores: Stack
) -> None:
    """Workers cannot refresh either, and get no second message."""
    installation.sign_in(ANN)
    installation.clock.advance(minutes=58)
    stores.postgres.stop()

    with working(installation.services):
        assert selecting.get(ANN).version == 1
    assert installation.requests == 0


def test_the_error_names_the_setting_that_a_method_needs(installation: Installation, reader: TokenClient) -> None:
    """The error is raised before anything is changed."""
    installation.sign_in(ANN)

    with pytest.raises(ConfigurationError, match="WORKER_ENCRYPTION_KEYS"):
        reader.save(BOB, refresh_token="a-refresh-token")
    with pytest.raises(ConfigurationError, match="WORKER_ENCRYPTION_KEYS"):
        reader.disconnect(ANN)
    with pytest.raises(ConfigurationError, match="WORKER_DATABASE_URL"):
        next(reader.watch())
    assert reader.get(ANN).version == 1


def test_a_reader_with_postgres_can_watch(installation: Installation, selecting: TokenClient) -> None:
    """A process that shows users what to do need not be able to refresh."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS50173"))
    installation.refresh_due()

    assert next(selecting.watch()).email == ANN
