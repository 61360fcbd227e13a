"""Redis and Postgres refuse each role the commands that it must not use."""

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
import redis

from tests.constants import ANN
from tests.roles import OWNER, acl_rules, postgres_roles, redis_users
from worker.domain.account import account_id

ENTRY, OUTBOX = f"token-worker:entry:{account_id(ANN)}", "token-worker:outbox"
QUEUES = ("ondemand", "sweep", "refresh")


@pytest.fixture(name="users")
def _users(redis_url: str) -> Iterator[dict[str, str]]:
    with redis_users(redis_url) as urls:
        yield urls


FORBIDDEN: dict[str, list[tuple[str, ...]]] = {
    "reader": [
        ("SET", ENTRY, "x"),
        ("DEL", ENTRY),
        ("EVAL", "return 1", "0"),
        ("HSET", OUTBOX, "x", "x"),
        ("HGETALL", OUTBOX),
        ("SET", "token-worker:fleet", "x"),
        ("SET", "token-worker:pause:default:contoso.com", "x"),
        ("LPUSH", "sweep", "x"),
        ("LPUSH", "refresh", "x"),
        ("RPOP", "ondemand"),
        ("LRANGE", "ondemand", "0", "-1"),
        ("SADD", "_kombu.binding.refresh", "x"),
        ("PUBLISH", "/0.celery.pidbox", "x"),
    ],
    "consumer": [
        ("LPUSH", "ondemand", "x"),
        ("HGETALL", "unacked"),
        ("SET", "token-worker:swept", ""),
        ("PUBLISH", "/0.celery.pidbox", "x"),
        ("SCAN", "0"),
    ],
    "beat": [
        ("GET", ENTRY),
        ("SET", ENTRY, "x"),
        ("HGETALL", OUTBOX),
        ("LPUSH", "ondemand", "x"),
        ("RPOP", "sweep"),
        ("SET", "token-worker:fleet", "x"),
        ("PUBLISH", "/0.celeryev/worker.heartbeat", "x"),
    ],
    "flower": [
        ("GET", ENTRY),
        ("HGETALL", OUTBOX),
        *(("LPUSH", queue, "x") for queue in QUEUES),
        *(("RPOP", queue) for queue in QUEUES),
        ("SET", "token-worker:fleet", "x"),
        ("DEL", "unacked"),
    ],
    "exporter": [
        ("GET", ENTRY),
        ("HGETALL", OUTBOX),
        ("HDEL", OUTBOX, "x"),
        ("SET", "token-worker:swept", ""),
        *(("LPUSH", queue, "x") for queue in QUEUES),
        *(("RPOP", queue) for queue in QUEUES),
        ("PUBLISH", "/0.celery.pidbox", "x"),
    ],
    "health": [("GET", ENTRY), ("INFO",), ("SCAN", "0")],
    "worker": [("SET", "of-another-program", "x"), ("GET", "of-another-program"), ("RANDOMKEY",)],
}
_OF_OPERATORS = [("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "GET", "*"), ("ACL", "LIST"), ("MONITOR",), ("KEYS", "*")]
_OF_OPERATORS += [("CLIENT", "LIST"), ("SHUTDOWN", "NOSAVE"), ("REPLICAOF", "NO", "ONE")]


def test_every_user_is_tested() -> None:
    assert set(FORBIDDEN) == set(acl_rules())


@pytest.mark.parametrize("user", sorted(FORBIDDEN))
def test_redis_refuses_what_a_user_must_not_do(users: dict[str, str], user: str) -> None:
    """Also all that only an operator may do."""
    with redis.Redis.from_url(users[user]) as client:
        for command in (*FORBIDDEN[user], *_OF_OPERATORS):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)


def test_only_the_health_check_needs_no_password() -> None:
    """It may ping, and nothing else."""
    assert [name for name, rules in acl_rules().items() if "nopass" in rules] == ["health"]
    assert acl_rules()["health"][-2:] == ["-@all", "+ping"]


@pytest.fixture(name="roles")
def _roles(database_url: str) -> Iterator[dict[str, str]]:
    with postgres_roles(database_url) as urls:
        yield urls


DENIED = {
    OWNER: ["CREATE ROLE x", "CREATE DATABASE x", "COPY fleet TO PROGRAM 'true'"],
    "token_worker": [
        "CREATE TABLE x ()",
        "DROP TABLE mail_credentials",
        "TRUNCATE mail_credentials",
        "UPDATE fleet SET id = gen_random_uuid()",
        "DELETE FROM alembic_version",
        "UPDATE audit_events SET reason = 'x'",
        "COPY fleet TO PROGRAM 'true'",
        "CREATE ROLE x",
    ],
    "token_worker_reader": [
        "UPDATE mail_credentials SET status = 'paused'",
        "INSERT INTO refresh_events DEFAULT VALUES",
        "DELETE FROM mail_credentials",
        "SELECT * FROM oauth_clients",
        "SELECT maintain_ledger(now(), 30, 2)",
        "CREATE TABLE x ()",
    ],
    "token_worker_exporter": [
        "SELECT * FROM mail_credentials",
        "SELECT refresh_token FROM mail_credentials",
        "SELECT access_token FROM mail_credentials",
        "SELECT email FROM mail_credentials",
        "SELECT correlation_id FROM refresh_events",
        "SELECT account_id FROM refresh_events",
        "UPDATE mail_credentials SET status = 'paused'",
        "DELETE FROM refresh_events",
        "SELECT maintain_ledger(now(), 30, 2)",
        "SELECT nextval('refresh_events_id_seq')",
        "CREATE TABLE x ()",
    ],
}


@pytest.mark.parametrize("role", sorted(DENIED))
def test_postgres_refuses_what_a_role_must_not_do(roles: dict[str, str], role: str) -> None:
    with closing(psycopg.connect(roles[role], autocommit=True)) as connection:
        for statement in DENIED[role]:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_no_role_is_a_superuser(roles: dict[str, str], database_url: str) -> None:
    with closing(psycopg.connect(database_url.replace("+psycopg", ""))) as server:
        found = server.execute(
            "SELECT rolname FROM pg_roles WHERE rolname LIKE 'token_worker%'"
            " AND NOT (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)"
        ).fetchall()

    assert {name for (name,) in found} == set(roles)


def test_a_worker_may_use_what_a_later_migration_makes(roles: dict[str, str]) -> None:
    """Otherwise it would fail between the migration and grants.sql."""
    with closing(psycopg.connect(roles[OWNER], autocommit=True)) as owner:
        owner.execute("CREATE TABLE of_tomorrow (id bigserial)")
        with closing(psycopg.connect(roles["token_worker"], autocommit=True)) as worker:
            worker.execute("INSERT INTO of_tomorrow DEFAULT VALUES")
        owner.execute("DROP TABLE of_tomorrow")
