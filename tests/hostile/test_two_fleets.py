"""Two fleets in one Redis: neither touches what belongs to the other."""

from collections.abc import Callable, Iterator
from contextlib import closing
from uuid import uuid4

import psycopg
import pytest

from tests.constants import ANN
from tests.integration.installation import Installation
from tests.integration.outboxes import kept
from tests.stores import Scratch, admin, sibling
from worker.bootstrap import Services
from worker.cache import OutboxStore
from worker.devkit.stack import Stack
from worker.domain.account import Grant, account_id
from worker.domain.errors import ConfigurationError
from worker.domain.token import Secret

REFUSAL = "Redis holds the keys of a fleet with another database"


@pytest.fixture(name="other_database")
def _other_database(stack: Stack, template: str) -> Iterator[str]:
    """Migrated, with an id of its own."""
    name = f"other_{uuid4().hex}"
    with closing(admin(stack)) as server:
        server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        url = sibling(stack.database_url, name)
        with psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://")) as connection:
            connection.execute("UPDATE fleet SET id = gen_random_uuid()")
        yield url
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(name="waiting")
def _waiting(installation: Installation, scratch: Scratch) -> Installation:
    """New tokens of Ann's wait in the outbox, because Postgres refuses them."""
    installation.sign_in(ANN, due=True)
    installation.query("ALTER TABLE mail_credentials ADD CONSTRAINT refuse CHECK (version < 2) NOT VALID")
    installation.refresh_due()
    assert outbox(installation.services)
    return installation


def outbox(services: Services) -> set[str]:
    return {str(account) for account in kept(OutboxStore(services.redis))}


def other_fleet(installation: Installation, database: str, **settings: str) -> Services:
    """Services of a fleet with the same keys, another database, and an account of Ann's there."""
    services = installation.another_process(database_url=database, **settings)
    services.accounts.save([Grant(email=ANN, refresh_token=Secret("another refresh token"))])
    return services


@pytest.mark.parametrize(
    "work",
    [
        lambda services: services.refresher.batches_due(limit=9),
        lambda services: services.refresher.refresh_due(),
        lambda services: services.tokens.get(ANN),
        lambda services: services.on_demand.refresh_now(account_id(ANN)),
        lambda services: services.key_rotation.rotate(progress=lambda _done: None),
    ],
    ids=["sweep", "batch", "consumer", "operator", "rotation"],
)
def test_a_fleet_takes_no_results_of_another(
    waiting: Installation, other_database: str, work: Callable[[Services], object]
) -> None:
    """Without the check it would write them to its own database, and delete them."""
    other = other_fleet(waiting, other_database)
    other.redis.delete(other.redis.names.entry(account_id(ANN)))  # a consumer would read no further

    with pytest.raises(ConfigurationError, match=REFUSAL):
        work(other)

    assert outbox(waiting.services) == {str(account_id(ANN))}


def test_fleets_with_namespaces_of_their_own_share_a_redis(waiting: Installation, other_database: str) -> None:
    other = other_fleet(waiting, other_database, namespace="blue")

    assert other.refresher.refresh_due()["leased"] == 1

    assert outbox(other) == set()
    assert outbox(waiting.services) == {str(account_id(ANN))}
    keys = set(waiting.services.redis.scan_iter())
    entry = f"token-worker:entry:{account_id(ANN)}".encode()
    assert {b"token-worker:fleet", b"token-worker:outbox", entry} <= keys
    assert {b"blue:token-worker:fleet", b"blue:" + entry} <= keys


def test_a_running_fleet_marks_its_keys_again_after_a_flush(installation: Installation, other_database: str) -> None:
    installation.refresh_due()
    installation.services.redis.flushall()
    installation.services.refresher.batches_due(limit=9)

    with pytest.raises(ConfigurationError, match=REFUSAL):
        other_fleet(installation, other_database).refresher.refresh_due()


def test_no_value_in_redis_stops_a_running_fleet(installation: Installation) -> None:
    installation.sign_in(ANN, due=True)
    installation.services.refresher.batches_due(limit=9)
    installation.services.redis.set("token-worker:fleet", str(uuid4()))

    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}
    assert "Another fleet uses the same keys in Redis" in [each["event"] for each in installation.logs]


@pytest.mark.parametrize("value", [b"", b"x" * 36, b"[" * 200_000, b"\xff", b"0" * 37])
def test_a_mark_that_no_fleet_has_written_counts_as_none(installation: Installation, value: bytes) -> None:
    redis = installation.services.redis
    redis.set("token-worker:fleet", value)

    installation.services.fleet.claim()

    [(ours,)] = installation.query("SELECT id FROM fleet")
    assert redis.get("token-worker:fleet") == str(ours).encode()


def test_a_mark_of_another_type_counts_as_none(installation: Installation) -> None:
    installation.services.redis.lpush("token-worker:fleet", "x")

    installation.services.fleet.claim()

    assert installation.services.redis.strlen("token-worker:fleet") == 36


def test_an_operator_gives_the_keys_to_another_fleet(installation: Installation, other_database: str) -> None:
    """The command that the refusal names."""
    installation.refresh_due()
    other = other_fleet(installation, other_database)
    with pytest.raises(ConfigurationError) as refusal:
        other.refresher.refresh_due()

    _, _, key = str(refusal.value).rpartition("redis-cli DEL ")
    installation.services.redis.delete(key)

    assert other.refresher.refresh_due()["leased"] == 1


def test_an_emptied_table_is_named(installation: Installation) -> None:
    installation.query("DELETE FROM fleet")

    with pytest.raises(ConfigurationError, match="INSERT INTO fleet DEFAULT VALUES") as refusal:
        installation.refresh_due()

    installation.query(str(refusal.value).rpartition("run: ")[2])
    assert installation.refresh_due() == {"leased": 0}
