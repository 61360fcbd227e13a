"""A right that is missing ends in one sentence with the statement that gives it, and the statement helps."""

from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url, text

from tests.stores import admin
from worker.db import schema
from worker.db.remedies import reason
from worker.db.session import Database
from worker.devkit.stack import Stack
from worker.domain.errors import StorageError, Unavailable, WorkerError

ROLE, PASSWORD = "Low-1", "secret"


@pytest.fixture(name="owner")
def _owner(database_url: str) -> Iterator[psycopg.Connection]:
    url = database_url.replace("postgresql+psycopg://", "postgresql://")
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute(f"CREATE ROLE \"{ROLE}\" LOGIN PASSWORD '{PASSWORD}'")
        yield connection
        connection.execute(f'DROP OWNED BY "{ROLE}"')
        connection.execute(f'DROP ROLE "{ROLE}"')


@pytest.fixture(name="low_url")
def _low_url(database_url: str, owner: psycopg.Connection) -> str:
    """The URL of a user without rights."""
    return make_url(database_url).set(username=ROLE, password=PASSWORD).render_as_string(hide_password=False)


def refusal(url: str, work: str) -> str:
    database = Database(url)
    with closing(database), pytest.raises(WorkerError) as error, database.begin() as connection:
        connection.execute(text(work))
    return str(error.value)


def drop_tables(owner: psycopg.Connection) -> None:
    found = owner.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    owner.execute(sql.SQL("DROP TABLE {}").format(sql.SQL(", ").join(sql.Identifier(name) for (name,) in found)))
    owner.execute("DROP FUNCTION IF EXISTS maintain_ledger")


def statement(sentence: str) -> str:
    """The statement in a sentence."""
    found = sentence.rpartition("run as its owner: ")[2]
    assert found.startswith("GRANT ")
    return found


@pytest.mark.parametrize(
    "work",
    ["SELECT FROM mail_credentials", "UPDATE oauth_clients SET failures = 0", "CREATE TABLE mine (id int)"],
)
def test_the_statement_gives_the_missing_right(low_url: str, owner: psycopg.Connection, work: str) -> None:
    sentence = refusal(low_url, work)
    assert f'TO "{ROLE}"' in sentence
    assert "\n" not in sentence

    owner.execute(sql.SQL(statement(sentence)))

    with closing(Database(low_url)) as database, database.begin() as connection:
        connection.execute(text(work))


def test_a_user_who_may_not_connect(low_url: str, owner: psycopg.Connection) -> None:
    name = make_url(low_url).database
    owner.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")

    sentence = refusal(low_url, "SELECT 1")
    owner.execute(sql.SQL(statement(sentence)))

    assert f"GRANT CONNECT ON DATABASE {name} TO" in sentence
    with closing(Database(low_url)) as database:
        database.ping()
    owner.execute(f"GRANT CONNECT ON DATABASE {name} TO PUBLIC")  # other tests use the same database


def test_a_database_that_does_not_exist(stack: Stack, database_url: str) -> None:
    url = make_url(database_url).set(database="new-one").render_as_string(hide_password=False)

    sentence = refusal(url, "SELECT 1")

    assert sentence.endswith('run as a superuser: CREATE DATABASE "new-one" OWNER app')
    with closing(admin(stack)) as connection:
        connection.execute(sql.SQL(sentence.rpartition("superuser: ")[2]))
        with closing(Database(url)) as database:
            database.ping()
        connection.execute('DROP DATABASE "new-one" WITH (FORCE)')


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"password": "wrong"}, "correct user and password in WORKER_DATABASE_URL"),
        ({"port": 1}, ""),
    ],
    ids=["password", "port"],
)
def test_a_connection_that_fails(low_url: str, change: dict[str, str | int], advice: str) -> None:
    sentence = refusal(make_url(low_url).set(**change).render_as_string(hide_password=False), "SELECT 1")  # type: ignore[arg-type]

    assert sentence.startswith("the database cannot be used: connection failed")
    assert sentence.endswith(advice)


def test_an_error_without_a_text(low_url: str) -> None:
    assert reason(psycopg.errors.InsufficientPrivilege(), "app") == (
        "InsufficientPrivilege; run: token-worker doctor, which names each missing GRANT"
    )


@pytest.fixture(name="migrate")
def _migrate(low_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    monkeypatch.setenv("WORKER_DATABASE_URL", low_url)
    return lambda: schema.upgrade(ROLE)


def test_a_migration_without_rights_on_the_schema(
    migrate: Callable[[], None], low_url: str, owner: psycopg.Connection
) -> None:
    drop_tables(owner)

    with pytest.raises(StorageError) as refused:
        migrate()
    owner.execute(sql.SQL(statement(str(refused.value))))

    migrate()


def test_a_migration_of_a_read_only_database(migrate: Callable[[], None], owner: psycopg.Connection) -> None:
    owner.execute(f'ALTER ROLE "{ROLE}" SET default_transaction_read_only = on')
    owner.execute(f'GRANT CREATE ON SCHEMA public TO "{ROLE}"')
    drop_tables(owner)

    with pytest.raises((StorageError, Unavailable), match="Postgres is read-only"):
        migrate()


def test_a_migration_by_another_user_than_the_owner(migrate: Callable[[], None], owner: psycopg.Connection) -> None:
    owner.execute(f'GRANT ALL ON ALL TABLES IN SCHEMA public TO "{ROLE}"')
    owner.execute(f'GRANT CREATE ON SCHEMA public TO "{ROLE}"')
    [(version,)] = owner.execute("SELECT version_num FROM alembic_version")
    owner.execute("UPDATE alembic_version SET version_num = '20261124_1800'")

    with pytest.raises(StorageError, match="run token-worker migrate as the owner of the tables"):
        migrate()
    owner.execute("UPDATE alembic_version SET version_num = %s", (version,))
