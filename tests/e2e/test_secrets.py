"""After a run with every kind of failure, no token, key or password can be read anywhere."""

import base64
import binascii
import re
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from tests.e2e.deployment import Deployment
from tests.e2e.flower import LOGIN, Flower
from tests.waiting import wait_for
from worker.devkit.emulator import DEFAULT_CLIENT_ID, Emulator, Fault, RawAnswer, Registration, fault_named, oauth_error
from worker.devkit.stack import Stack
from worker.devkit.stack.process import Process
from worker.vault import key_prefix

CLIENT_SECRET = "Xq8~very-secret-of-the-app"
NAMED_FAULTS = {
    "invalid-grant": "50173",
    "looping": "50196",
    "html": "html-200",
    "garbage-id-token": "garbage-id-token",
    "reset": "reset",
    "lost": "reset-after",
    "wrong-types": "wrong-types",
    "truncated": "truncated-json",
    "odd-error": "odd-error",
    "our-app": "7000215",
}
FINE, EXPIRED, ECHOED, QUOTED, DAMAGED = (
    f"{name}@contoso.com" for name in ["fine", "expired", "echoed", "quoted", "damaged"]
)
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{24,}={0,2}")
# Every token of the emulator matches one of these, even if it is cut short.
_SHAPES = {"a JWT": re.compile(rb"eyJ[\w-]{8,}\.[\w-]{8,}"), "a refresh token": re.compile(rb"1\.A[\w-]{60,}")}


class Detector:
    """Finds secrets in bytes, also in one layer of base64, which Celery uses for its messages."""

    def __init__(self, secrets: dict[str, str]) -> None:
        self.secrets = {name: value.encode() for name, value in secrets.items()}

    def found(self, text: str | bytes) -> set[str]:
        plain = text.encode() if isinstance(text, str) else text
        return {name for layer in (plain, *_decoded(plain)) for name in self._found(layer)}

    def _found(self, text: bytes) -> Iterator[str]:
        yield from (name for name, value in self.secrets.items() if value in text)
        yield from (name for name, shape in _SHAPES.items() if shape.search(text))


class Wiretap:
    """Records all commands that Redis gets, by MONITOR."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        assert address.hostname
        assert address.port
        self._connection = socket.create_connection((address.hostname, address.port))
        self._connection.sendall(f"AUTH {address.password}\r\nMONITOR\r\n".encode())
        self._recorded = bytearray()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def recorded(self) -> bytes:
        return bytes(self._recorded)

    def close(self) -> None:
        self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while chunk := self._connection.recv(1 << 16):
                self._recorded += chunk


@pytest.fixture(name="wiretap")
def _wiretap(stack: Stack) -> Iterator[Wiretap]:
    with closing(Wiretap(stack.redis_url)) as wiretap:
        yield wiretap


@pytest.fixture(name="troubled")
def _troubled(deployment: Deployment) -> Deployment:
    """Accounts for every kind of outcome, all due, with logs at the level DEBUG."""
    deployment.environment |= {"WORKER_CLIENT_SECRET": CLIENT_SECRET, "WORKER_LOG_LEVEL": "DEBUG"}
    emulator = deployment.emulator
    emulator.registrations.register(Registration(DEFAULT_CLIENT_ID, secrets=(CLIENT_SECRET,)))
    deployment.add_due_accounts(FINE, EXPIRED, ECHOED, QUOTED, DAMAGED, *_faults())
    emulator.enrol(EXPIRED, refresh_token_lifetime=timedelta(0))
    for email, fault in {**_faults(), **_echoes(emulator)}.items():
        emulator.add_fault(fault, email)
    deployment.sql("UPDATE mail_credentials SET refresh_token = '\\x0102' WHERE email = %s", DAMAGED)
    return deployment


def test_no_secret_can_be_read_anywhere_after_a_troubled_run(
    troubled: Deployment, stack: Stack, wiretap: Wiretap
) -> None:
    """Logs, tracebacks, broker, cache, Flower, ledger, command output, and the stores' own files."""
    flower = Flower(troubled, FLOWER_BASIC_AUTH=LOGIN)
    worker, beat = troubled.worker(), troubled.celery("beat")
    _run(troubled, [worker, beat, flower.process])
    detector = Detector(_secrets(troubled))
    seen = {**_flower_pages(flower), **_commands(troubled)}
    worker.stop()
    queued = wait_for(lambda: _queued(stack.redis_url, "sweep"), about="messages without a receiver")

    seen |= {
        "worker log": worker.output(),
        "beat log": beat.output(),
        "Flower log": flower.process.output(),
        "queued messages": queued,
        "Redis": b"\n".join(_everything_in_redis(stack.redis_url)),
        "commands to Redis": wiretap.recorded(),
        "Postgres": "\n".join(_everything_in_postgres(troubled)),
    }
    assert {place: found for place, text in seen.items() if (found := detector.found(text))} == {}
    assert _files_with_tokens(stack.directory, detector) == {}
    assert _token_columns_hold_only_sealed_bytes(troubled)
    _check_all_kinds_of_failures_occurred(troubled, worker)
    assert "an issued access token" in detector.found(troubled.cli("token", FINE, "--json").stdout), "it finds tokens"


def _faults() -> dict[str, Fault]:
    return {f"{name}@contoso.com": fault_named(fault) for name, fault in NAMED_FAULTS.items()}


def _echoes(emulator: Emulator) -> dict[str, Fault]:
    """Responses that quote the request, as a debugging proxy or a verbose server would send them."""
    sent = f"client_secret={CLIENT_SECRET}&refresh_token={emulator.newest_refresh_token(ECHOED)}"
    quoted = f"The token {emulator.newest_refresh_token(QUOTED)} was revoked."
    return {
        ECHOED: RawAnswer(f"<html><pre>{sent}</pre></html>".encode(), 502, "text/html"),
        QUOTED: oauth_error("50173", message=quoted),
    }


def _run(deployment: Deployment, processes: list[Process]) -> None:
    requested = """
        SELECT (SELECT count(DISTINCT account_id) FROM refresh_events)
            + (SELECT count(DISTINCT refresh >> 16) FROM refresh_successes, unnest(refreshes) AS refresh)
    """
    wait_for(lambda: deployment.sql(requested) == [(14,)], about="a request per account", processes=processes)
    # Otherwise the failing accounts are retried on a slow machine until the registration's breaker opens, which the
    # doctor reports.
    postponed = "UPDATE mail_credentials SET refresh_due_at = now() + interval '1 h' WHERE email <> %s AND email <> %s"
    deployment.sql(postponed, FINE, DAMAGED)
    # First the table of the ledger is missing while a worker stores new tokens, then the table of the accounts.
    worker = processes[0]
    with _missing(deployment, "refresh_successes"):
        deployment.sql("UPDATE mail_credentials SET refresh_due_at = now() WHERE email = %s", FINE)
        wait_for(lambda: "kept in the outbox" in worker.output(), about="a token to wait", processes=processes)
    with _missing(deployment, "mail_credentials"):
        wait_for(lambda: "Task cannot be done" in worker.output(), about="a task to fail", processes=processes)


@contextmanager
def _missing(deployment: Deployment, table: str) -> Iterator[None]:
    deployment.sql(f"ALTER TABLE {table} RENAME TO elsewhere")
    yield
    deployment.sql(f"ALTER TABLE elsewhere RENAME TO {table}")


def _secrets(deployment: Deployment) -> dict[str, str]:
    environment = deployment.environment
    secrets = {
        "the client secret": CLIENT_SECRET,
        "the encryption key": environment["WORKER_ENCRYPTION_KEYS"].partition(":")[2],
        "the database password": urlsplit(environment["WORKER_DATABASE_URL"]).password or "",
        "the Redis password": urlsplit(environment["WORKER_REDIS_URL"]).password or "",
        "Flower's password": LOGIN.partition(":")[2],
    }
    assert all(secrets.values())
    with deployment.services() as services:
        secrets["an issued access token"] = services.tokens.get(FINE).value
    for email in deployment.emulator.statistics().by_account:
        secrets[f"the refresh token of {email}"] = deployment.emulator.newest_refresh_token(email)
    return secrets


def _decoded(text: bytes) -> Iterator[bytes]:
    for run in _BASE64.findall(text):
        with suppress(binascii.Error):
            yield base64.b64decode(run + b"=" * (-len(run) % 4))


def _flower_pages(flower: Flower) -> dict[str, str | bytes]:
    worker = next(iter(flower.json("/api/workers?refresh=true")))
    tasks = flower.json("/api/tasks?limit=1000")
    failed = [name for name, task in tasks.items() if task["state"] == "FAILURE"]
    assert failed
    paths = ["/api/workers", "/api/tasks?limit=1000", "/api/queues/length", "/metrics", "/broker", "/workers"]
    paths += [
        f"/worker/{worker}",
        *(f"/api/task/info/{name}" for name in failed),
        *(f"/task/{name}" for name in failed),
    ]
    return {f"Flower {path}": flower.text(path) for path in paths}


def _commands(deployment: Deployment) -> dict[str, str | bytes]:
    commands = [
        ["list"],
        ["status"],
        ["doctor"],
        *([command, email] for email in (FINE, ECHOED) for command in ("show",)),
    ]
    commands += [["-v", "refresh", ECHOED], ["-v", "refresh", QUOTED], ["-v", "refresh", DAMAGED]]
    outputs = [deployment.cli(*command) for command in commands]
    assert [output.returncode for output in outputs] == [0, 0, 0, 0, 0, 1, 3, 1]
    return {" ".join(command): output.stdout + output.stderr for command, output in zip(commands, outputs, strict=True)}


def _queued(url: str, queue: str) -> bytes:
    with redis.Redis.from_url(url) as client:
        found: Any = client.lrange(queue, 0, -1)
    return b"\n".join(found)


def _everything_in_redis(url: str) -> Iterator[bytes]:
    with redis.Redis.from_url(url) as client:
        read: dict[bytes, Any] = {
            b"string": client.get,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"set": client.smembers,
            b"zset": lambda key: client.zrange(key, 0, -1),
            b"hash": client.hgetall,
            b"stream": client.xrange,
        }
        for key in client.scan_iter(count=1000):
            kind: Any = client.type(key)
            yield key
            yield from _flattened(read[kind](key))


def _flattened(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        yield from _flattened([*value.keys(), *value.values()])
    elif isinstance(value, Iterable):
        for part in value:
            yield from _flattened(part)


def _everything_in_postgres(deployment: Deployment) -> Iterator[str]:
    """Every row of every table. Bytes are printed as text, so that a token in the clear is found."""
    for table in ("mail_credentials", "refresh_events", "refresh_successes", "alembic_version"):
        yield from (str(row) for row in deployment.sql(f"SELECT * FROM {table}"))


def _files_with_tokens(directory: Path, detector: Detector) -> dict[Path, set[str]]:
    """The data files, write-ahead logs and server logs with tokens. The servers' passwords are in private files."""
    tokens = {name: value for name, value in detector.secrets.items() if "token" in name}
    found = {}
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if names := {name for name, value in tokens.items() if value in content}:
                found[path] = names
    return found


def _token_columns_hold_only_sealed_bytes(deployment: Deployment) -> bool:
    rows = deployment.sql("SELECT access_token, refresh_token FROM mail_credentials WHERE email <> %s", DAMAGED)
    sealed = [bytes(value) for row in rows for value in row if value is not None]
    return len(sealed) > len(rows) and all(value.startswith(key_prefix("k1")) for value in sealed)


def _check_all_kinds_of_failures_occurred(deployment: Deployment, worker: Process) -> None:
    outcomes = {outcome for (outcome,) in deployment.sql("SELECT DISTINCT outcome FROM refresh_events")}
    assert outcomes >= {"reauth_required", "throttled", "transient", "misconfigured"}
    assert deployment.sql("SELECT count(*) > 0 FROM refresh_successes") == [(True,)]
    assert deployment.accounts()[DAMAGED].status == "unreadable"
    assert deployment.accounts()[EXPIRED].status == "reauth_required"
    assert "Task cannot be done" in worker.output()
    with deployment.services() as services:
        stored = services.accounts.find(FINE)
        assert stored.access_token
        assert stored.version >= 2
