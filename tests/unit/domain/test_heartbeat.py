"""A heartbeat survives its way through Redis. Anything else in its place counts as none."""

import json
from collections.abc import Mapping

import pytest

from tests.factories import NOW
from worker.domain.heartbeat import Heartbeat, Role, decode, encode

HEARTBEAT = Heartbeat(
    role=Role.WORKER,
    host="web-1",
    pid=4711,
    version="1.0",
    started_at=NOW,
    at=NOW,
    key_ids=("k2", "k1"),
    queues=("ondemand", "sweep"),
)


def with_changes(**changes: object) -> bytes:
    fields: Mapping[str, object] = json.loads(encode(HEARTBEAT))
    return json.dumps({**fields, **changes}).encode()


def test_a_heartbeat_is_read_as_it_was_written() -> None:
    assert decode(encode(HEARTBEAT)) == HEARTBEAT


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        b"[" * 4096,
        encode(HEARTBEAT) + b" " * 4096,
        with_changes(role="consumer"),
        with_changes(role=["worker"]),
        with_changes(host="x" * 256),
        with_changes(host="\x1b[2J"),
        with_changes(version=None),
        with_changes(pid=True),
        with_changes(pid=-1),
        with_changes(pid=10**30),
        with_changes(at=float("nan")),
        with_changes(at=float("inf")),
        with_changes(at=1e300),
        with_changes(at=True),
        with_changes(started_at="now"),
        with_changes(key_ids="k1"),
        with_changes(key_ids=["k"] * 101),
        with_changes(queues=[{}]),
    ],
    ids=lambda value: repr(value[-24:]),
)
def test_no_other_value_is_a_heartbeat(value: bytes) -> None:
    assert decode(value) is None
