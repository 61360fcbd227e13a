"""The scripts by which the containers of the stores make users and roles, run against real servers."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import redis

from tests.deployment.test_compose import compose
from tests.stores import ROOT, admin, sibling
from tests.waiting import wait_for
from worker.devkit.stack import Stack
from worker.devkit.stack.process import Process
from worker.devkit.stack.programs import find_valkey

ROLES = ("token_worker_owner", "token_worker", "token_worker_reader", "token_worker_exporter")


@pytest.fixture(name="secrets")
def _secrets(tmp_path: Path) -> dict[str, str]:
    """The secrets of the compose file, as files in /run/secrets would hold them."""
    values = {
        "OWNER_DATABASE_URL": "postgresql://token_worker_owner:a1@postgres:5432/worker",
        "WORKER_DATABASE_URL": "postgresql://token_worker:b2@postgres:5432/worker",
        "EXPORTER_DATABASE_URL": "postgresql://token_worker_exporter:f6@postgres:5432/worker",
        "WORKER_REDIS_URL": "redis://worker:c3@valkey:6379/0",
        "BEAT_REDIS_URL": "redis://beat:d4@valkey:6379/0",
        "FLOWER_REDIS_URL": "redis://flower:e5@valkey:6379/0",
    }
    for name, value in values.items():
        (tmp_path / name).write_text(f"{value}\n")
    return values


def test_valkey_starts_with_a_user_for_each_process(tmp_path: Path, secrets: dict[str, str]) -> None:
    project = json.loads(compose("config", "--format", "json"))
    command = project["services"]["valkey"]["command"][-1].replace("$$", "$")
    (tmp_path / "valkey-server").symlink_to(find_valkey())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = (
        command.replace("/run/secrets", str(tmp_path))
        .replace("/deploy/users.acl", str(ROOT / "deploy" / "valkey" / "users.acl"))
        .replace("valkey-server -", f"valkey-server - --port {port} --bind 127.0.0.1")
    )
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    process = Process(["sh", "-euc", script], log=tmp_path / "log", environment=environment)
    try:
        health = redis.Redis(port=port, username="health", password="any")
        wait_for(lambda: _pings(health), about="Valkey to answer", processes=[process])

        for user, password in (("worker", "c3"), ("beat", "d4"), ("flower", "e5")):
            with redis.Redis(port=port, username=user, password=password) as client:
                assert client.ping()
        with redis.Redis(port=port, username="worker", password="c3") as worker:
            worker.set("token-worker:swept", "")
        for user, password in (("", ""), ("reader", ""), ("exporter", ""), ("default", ""), ("worker", "d4")):
            with (
                redis.Redis(port=port, username=user or None, password=password or None) as client,
                pytest.raises(redis.AuthenticationError),
            ):
                client.get("token-worker:swept")
    finally:
        process.kill()


def _pings(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture(name="empty")
def _empty(stack: Stack) -> Iterator[str]:
    """A database without tables. Its roles are dropped after the test."""
    name = f"empty_{uuid4().hex}"
    url = sibling(stack.database_url, name).replace("+psycopg", "")
    with closing(admin(stack)) as server:
        server.execute(f"CREATE DATABASE {name}")
        yield url
        with closing(psycopg.connect(url, autocommit=True)) as connection:
            for role in ROLES:
                connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {', '.join(ROLES)}")
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
def test_postgres_makes_the_roles_with_its_database(tmp_path: Path, secrets: dict[str, str], empty: str) -> None:
    """The owner migrates, and a worker may use the tables at once."""
    script = (ROOT / "deploy" / "postgres" / "init.sh").read_text()
    script = script.replace("/run/secrets", str(tmp_path)).replace("/deploy/", f"{ROOT}/deploy/")
    parameters = psycopg.conninfo.conninfo_to_dict(empty)
    environment = {
        "PATH": os.environ["PATH"],
        "PGHOST": str(parameters["host"]),
        "PGPORT": str(parameters["port"]),
        "PGPASSWORD": str(parameters["password"]),
        "POSTGRES_USER": str(parameters["user"]),
        "POSTGRES_DB": str(parameters["dbname"]),
    }
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    def url(role: str, password: str) -> str:
        return f"postgresql://{role}:{password}@{empty.rpartition('@')[2]}"

    with closing(psycopg.connect(url("token_worker_owner", "a1"), autocommit=True)) as owner:
        owner.execute("CREATE TABLE made_by_a_migration (id bigserial)")
    with closing(psycopg.connect(url("token_worker", "b2"), autocommit=True)) as worker:
        worker.execute("INSERT INTO made_by_a_migration DEFAULT VALUES")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            worker.execute("DROP TABLE made_by_a_migration")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url("token_worker_reader", ""))
