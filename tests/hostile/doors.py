"""Doors through which others' bytes come in, for fuzzing: random input for each, and the program that reads it.

A door may refuse an input by one of its own errors. Anything else that escapes would stop a batch, a worker, a consumer
or a command.
"""

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from celery import Celery
from celery.worker.control import Panel
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from kombu.transport.virtual import Channel, Message
from pydantic import ValidationError
from structlog.testing import capture_logs

from tests.factories import NOW, make_registration
from tests.hostile.test_messages import message
from worker.broker import messages
from worker.broker.control import restrict_commands
from worker.cache import (
    Cache,
    FleetMarker,
    HeartbeatStore,
    OutboxStore,
    RateLimiter,
    RedisClient,
    RequestDedup,
    TenantThrottle,
    connect,
)
from worker.devkit.stack import Stack
from worker.domain.account import Status, account_id
from worker.domain.cache_entry import CachedFailure, CacheEntry, encode
from worker.domain.cached_failure import as_error
from worker.domain.errors import ConfigurationError, InvalidInput
from worker.domain.http import HttpResponse
from worker.domain.microsoft import classify
from worker.domain.policy import RefreshPolicy
from worker.domain.token import AccessToken, Secret, TokenRequirement
from worker.identity.endpoints import EndpointRefused, check_endpoints
from worker.mail.answers import MailProtocol, Verdict
from worker.mail.xoauth2 import Conversation, EndlessChallenge
from worker.service.moving.fields import parse_account
from worker.service.moving.files import read_file
from worker.service.refresh.outbox import Outbox
from worker.service.tokens.cache import TokenCache
from worker.settings.clients import ClientSettings
from worker.vault import MasterKey, Purpose, Vault, parse_access_keys, parse_keys

ANN = account_id("ann@contoso.com")
FLEET = UUID(int=7)


@dataclass(frozen=True, slots=True)
class Reader:
    """The readers of a process, on a real Redis."""

    redis: RedisClient
    vault: Vault
    cache: TokenCache
    outbox: Outbox
    files: Path


@contextmanager
def open_reader(stack: Stack) -> Iterator[Reader]:
    with connect(stack.redis_url) as redis, tempfile.TemporaryDirectory() as directory, capture_logs():
        redis.flushall()
        vault = Vault([MasterKey("k1", bytes(32))])
        none = cast("Any", None)  # stores that these doors do not reach
        store = OutboxStore(redis)
        yield Reader(
            redis=redis,
            vault=vault,
            cache=TokenCache(Cache(redis, ttl=timedelta(hours=1)), vault),
            outbox=Outbox(
                database=none, store=store, fleet=none, vault=vault, accounts=none, cache=none, utcnow=lambda: NOW
            ),
            files=Path(directory),
        )


# Random input

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=40)
    | st.sampled_from([10**400, -1, 1e308, "\ud800", "\x00", "9" * 5000, "e" * 70_000]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=10,
)
DEEP = [b"[" * 5000, b'{"a":' * 3000, b"[" * 500 + b"]" * 500]  # Python gives up at a depth of 1000


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


BYTES: SearchStrategy[bytes] = st.binary(max_size=400) | JSON.map(dumped) | st.sampled_from(DEEP)
TEXT = st.text(max_size=200) | BYTES.map(lambda value: value.decode("latin-1"))


@st.composite
def changed(draw: Any, valid: dict[str, Any]) -> dict[str, Any]:
    """A valid document with one to three of its parts replaced, removed or added."""
    document = deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        part: dict[str, Any] = document
        key = draw(st.sampled_from(sorted(part) or ["x"]))
        while isinstance(part.get(key), dict) and part[key] and draw(st.booleans()):
            part = part[key]
            key = draw(st.sampled_from(sorted(part)))
        match draw(st.integers(0, 3)):
            case 0:
                part.pop(key, None)
            case 1:
                part[draw(st.text(max_size=12))] = draw(JSON)
            case _:
                part[key] = draw(JSON)
    return document


def _entry() -> dict[str, Any]:
    token = AccessToken(
        email="ann@contoso.com",
        secret=Secret("eyJ0"),
        obtained_at=NOW,
        expires_at=NOW + timedelta(hours=1),
        version=3,
    )
    failure = CachedFailure(kind="transient", code="http_503", retry_at=NOW + timedelta(minutes=1), noted_at=NOW)
    entry = CacheEntry(
        account_id=ANN, email="ann@contoso.com", status=Status.ACTIVE, version=3, token=token, failure=failure
    )
    document: dict[str, Any] = json.loads(encode(entry).reveal())
    return document


_PENDING = {
    "email": "ann@contoso.com",
    "based_on": 3,
    "replaces": "00" * 32,
    "access_token": "AAAA",
    "refresh_token": "AAAA",
    "obtained_at": NOW.isoformat(),
    "expires_at": NOW.isoformat(),
    "due_at": NOW.isoformat(),
}
_HEARTBEAT = {
    "role": "worker",
    "host": "web-1",
    "pid": 4711,
    "version": "1.0",
    "started_at": NOW.timestamp(),
    "at": NOW.timestamp(),
    "key_ids": ["k1"],
    "queues": ["ondemand"],
}
_ANSWER = {
    "token_type": "Bearer",
    "scope": "https://outlook.office.com/IMAP.AccessAsUser.All",
    "expires_in": 3600,
    "ext_expires_in": 3600,
    "access_token": "eyJ0",
    "refresh_token": "1.AX",
    "error": "invalid_grant",
    "error_description": "AADSTS50173: expired",
    "error_codes": [50173],
    "claims": "{}",
}
_ACCOUNT = {
    "email": "ann@contoso.com",
    "refresh_token": "1.AX",
    "client": "default",
    "authority": "https://login.microsoftonline.com/contoso.com",
    "scopes": ["a", "b"],
    "access_token": "eyJ0",
    "expires_at": NOW.timestamp(),
    "login_name": "ann",
    "labels": ["eu"],
    "imap_host": "outlook.office365.com",
    "imap_port": 993,
}
_METADATA = {
    "issuer": "https://login.example/contoso.com",
    "token_endpoint": "https://login.example/contoso.com/token",
    "authorization_endpoint": "https://login.example/contoso.com/authorize",
    "device_authorization_endpoint": "https://login.example/contoso.com/device",
}
_COMMAND = {
    "method": "ping",
    "arguments": {},
    "destination": None,
    "pattern": None,
    "matcher": None,
    "ticket": "1",
    "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "1"},
}


# Redis


def _put(reader: Reader, key: str, value: bytes | list[bytes]) -> None:
    """A list makes a key of that type."""
    reader.redis.delete(key)
    if isinstance(value, list):
        reader.redis.rpush(key, *(value or [b""]))
    else:
        reader.redis.set(key, value)


def _use_entry(reader: Reader) -> None:
    """Read the entry as a consumer does, and replace it as a worker does."""
    policy = RefreshPolicy()
    for entry in (reader.cache.read(ANN), *reader.cache.read_many([ANN]).values()):
        if entry is not None:
            for requirement in (TokenRequirement(), TokenRequirement(min_ttl=timedelta(hours=1), newer_than=1)):
                policy.is_conclusive(entry, requirement, now=NOW)
                requirement.accepts(entry.token, now=NOW)
            as_error(entry, entry.email, now=NOW)
    assert reader.cache.publish(
        [CacheEntry(account_id=ANN, email="ann@contoso.com", status=Status.ACTIVE, version=10**6)]
    )


def cache_entry(reader: Reader, value: bytes | list[bytes]) -> None:
    _put(reader, reader.redis.names.entry(ANN), value)
    _use_entry(reader)


def sealed_entry(reader: Reader, document: dict[str, Any] | bytes) -> None:
    """A holder of access keys has sealed it."""
    text = Secret((document if isinstance(document, bytes) else dumped(document)).decode("utf-8", "replace"))
    version = document.get("version") if isinstance(document, dict) else 3
    number = version if isinstance(version, int) and 0 <= version < 10**20 else 3
    value = b"1 %020d " % number + reader.vault.seal(text, ANN, Purpose.CACHE_ENTRY)
    _put(reader, reader.redis.names.entry(ANN), value)
    _use_entry(reader)


def _read_outbox(reader: Reader) -> None:
    for _cursor, values in reader.outbox._store.pages():
        reader.outbox._open_all(values)
    reader.outbox._open_all(reader.outbox._store.get_many([ANN]))
    reader.redis.delete(reader.redis.names.outbox)  # a value under an unknown key waits for a process that has it


def outbox_value(reader: Reader, given: tuple[bytes, bytes]) -> None:
    field, value = given
    reader.redis.hset(reader.redis.names.outbox, field, value)
    _read_outbox(reader)


def pending_result(reader: Reader, document: dict[str, Any] | bytes) -> None:
    """A worker of another version has sealed it."""
    text = Secret((document if isinstance(document, bytes) else dumped(document)).decode("utf-8", "replace"))
    sealed = reader.vault.seal(text, ANN, Purpose.PENDING_RESULT)
    reader.outbox._open_all({ANN: sealed})


def throttle(reader: Reader, value: bytes | list[bytes]) -> None:
    _put(reader, reader.redis.names.throttle("default", "contoso.com"), value)
    throttles = TenantThrottle(reader.redis, utcnow=lambda: NOW)
    waits = throttles.waits("default", ["contoso.com"])
    assert all(timedelta(0) < wait <= timedelta(minutes=1) for wait in waits.values())
    throttles.throttle("default", "contoso.com", timedelta(minutes=2))


def rate(reader: Reader, value: bytes | list[bytes]) -> None:
    _put(reader, reader.redis.names.rate("default"), value)
    assert RateLimiter(reader.redis, per_second=100)._try("default", 10) in range(11)


def record_of_request(reader: Reader, value: bytes | list[bytes]) -> None:
    _put(reader, reader.redis.names.request(ANN, "request"), value)
    assert RequestDedup(reader.redis).is_new(ANN, "request", timedelta(seconds=20))


def heartbeat(reader: Reader, given: tuple[bytes, bytes | dict[str, Any]]) -> None:
    name, value = given
    names = reader.redis.names
    key = names.process("").encode() + name
    reader.redis.set(key, value if isinstance(value, bytes) else dumped(value), px=30_000)
    reader.redis.zadd(names.processes, {name: NOW.timestamp()})
    HeartbeatStore(reader.redis).live()
    reader.redis.delete(key, names.processes)


def fleet_mark(reader: Reader, value: bytes | list[bytes]) -> None:
    _put(reader, reader.redis.names.fleet, value)
    FleetMarker(reader.redis).claim(FLEET)


# The broker


def _receive(parsed: Any) -> None:
    if messages._is_message(parsed):
        received: Any = Message(parsed, channel=Channel.__new__(Channel))
        if messages._reduce(received):
            assert json.loads(received.body)[1:] == [{}, {}]
            assert received.headers["task"] in messages._ARGUMENTS


def message_bytes(_reader: Reader, value: bytes) -> None:
    _receive(messages._loads_or_none(value.decode("utf-8", "replace")))


def message_parts(_reader: Reader, document: dict[str, Any]) -> None:
    _receive(messages._loads_or_none(dumped(document).decode("utf-8", "replace")))


def message_body(_reader: Reader, body: bytes) -> None:
    _receive(json.loads(json.dumps(message(body=body.decode("latin-1")))))


_APP = Celery("fuzz", broker="memory://", set_as_current=False)


def control_command(_reader: Reader, document: dict[str, Any]) -> None:
    """Celery logs an Exception of a command. Anything else would end the worker."""
    restrict_commands()
    control: Any = _APP.control
    node = control.mailbox.Node("fuzz@here", state=None, handlers=Panel.data)
    with suppress(Exception):
        node.dispatch(**{name: document.get(name) for name in ("method", "arguments", "ticket")})


# Files


def import_file(_reader: Reader, content: bytes) -> None:
    with suppress(InvalidInput):
        for record in read_file(io.BufferedReader(io.BytesIO(content))):
            with suppress(InvalidInput):
                parse_account(record.fields)


def import_record(_reader: Reader, document: dict[str, Any]) -> None:
    with suppress(InvalidInput):
        parse_account(document)


def keys(_reader: Reader, text: str) -> None:
    for parse in (parse_keys, parse_access_keys):
        with suppress(ConfigurationError):
            parse(text)


def certificate(reader: Reader, content: bytes) -> None:
    path = reader.files / "client.pem"
    path.write_bytes(content)
    with suppress(ValidationError):
        ClientSettings.model_validate({"client_id": "app", "client_certificate": str(path)})


def authority(_reader: Reader, text: str) -> None:
    with suppress(InvalidInput):
        make_registration().check_authority(text)


# The wire


def _classify(status: int, headers: dict[str, str], body: bytes) -> None:
    response = HttpResponse(status=status, headers=headers, body=body)
    outcome = classify(response, obtained_at=NOW)
    assert outcome.code.isprintable()


def answer_bytes(_reader: Reader, given: tuple[int, dict[str, str], bytes]) -> None:
    _classify(*given)


def answer_parts(_reader: Reader, given: tuple[int, dict[str, str], dict[str, Any]]) -> None:
    status, headers, document = given
    _classify(status, headers, dumped(document))


def discovery(_reader: Reader, document: dict[str, Any]) -> None:
    with suppress(EndpointRefused):
        check_endpoints(document, authority="https://login.example/contoso.com", allowed=("other.example",))


def mail_lines(_reader: Reader, given: tuple[MailProtocol, list[bytes], str]) -> None:
    protocol, challenges, words = given
    conversation = Conversation(protocol, "ann@contoso.com", Secret("eyJ0eXAi-a-token"))
    with suppress(EndlessChallenge):
        for challenge in challenges:
            conversation.reply_line(challenge)
    answer = conversation.answer("NO", words)
    assert answer.verdict in Verdict
    assert answer.words.isprintable()
    assert "eyJ0eXAi-a-token" not in answer.words
    assert answer.retry_after is None or answer.retry_after >= timedelta(0)


@dataclass(frozen=True, slots=True)
class Door:
    """``enter`` raises nothing for any input."""

    source: str
    name: str
    inputs: SearchStrategy[Any]
    enter: Callable[[Reader, Any], None]


VALUES = BYTES | st.lists(BYTES, max_size=2)
TIMES = st.floats().map(lambda number: repr(number).encode()) | st.integers().map(lambda number: str(number).encode())
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "date", "x-ms-request-id", "client-request-id", "content-type"]), TEXT, max_size=3
)
STATUS = st.integers(100, 599) | st.sampled_from([200, 400, 401, 429, 503])

DOORS = (
    Door("Redis", "cache entries", VALUES | BYTES.map(lambda rest: b"1 %020d " % 3 + rest), cache_entry),
    Door("Redis", "cache entries of a holder of access keys", changed(_entry()) | BYTES, sealed_entry),
    Door("Redis", "outbox", st.tuples(BYTES | st.just(str(ANN).encode()), BYTES), outbox_value),
    Door("Redis", "pending results of another version", changed(_PENDING) | BYTES, pending_result),
    Door("Redis", "throttled tenants", VALUES | TIMES, throttle),
    Door("Redis", "rates", VALUES | st.lists(TIMES, min_size=3, max_size=3).map(b" ".join), rate),
    Door("Redis", "records of requests", VALUES, record_of_request),
    Door("Redis", "heartbeats", st.tuples(BYTES, changed(_HEARTBEAT) | BYTES), heartbeat),
    Door("Redis", "mark of the fleet", VALUES, fleet_mark),
    Door("broker", "messages, any bytes", BYTES, message_bytes),
    Door("broker", "messages, changed parts", changed(message("worker.refresh_account", str(ANN))), message_parts),
    Door("broker", "bodies of messages", BYTES | st.lists(JSON, max_size=4).map(dumped), message_body),
    Door("broker", "control commands", changed(_COMMAND), control_command),
    Door("files", "imports, any bytes", BYTES | st.lists(BYTES, max_size=4).map(b"\n".join), import_file),
    Door(
        "files",
        "imports, CSV",
        TEXT.map(lambda row: f"email,refresh_token\n{row}".encode("utf-8", "replace")),
        import_file,
    ),
    Door("files", "imports, changed fields", changed(_ACCOUNT), import_record),
    Door("files", "encryption keys", TEXT | TEXT.map(lambda key: f"k1:{key}"), keys),
    Door("files", "client certificates", BYTES.map(lambda rest: b"-----BEGIN PRIVATE KEY-----\n" + rest), certificate),
    Door("files", "authorities", TEXT | TEXT.map(lambda path: f"https://localhost/{path}"), authority),
    Door("wire", "Microsoft's answers, any bytes", st.tuples(STATUS, HEADERS, BYTES), answer_bytes),
    Door("wire", "Microsoft's answers, changed parts", st.tuples(STATUS, HEADERS, changed(_ANSWER)), answer_parts),
    Door("wire", "discovery documents", changed(_METADATA), discovery),
    Door(
        "wire",
        "lines of mail servers",
        st.tuples(st.sampled_from(MailProtocol), st.lists(BYTES, max_size=4), TEXT),
        mail_lines,
    ),
)
