"""Heartbeats: what each live process of the fleet says of itself, as JSON in Redis."""

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

LONGEST = 4096  #: bytes of a heartbeat; one with many keys and queues has about 700
_LONGEST_TEXT = 255  # characters, as of a host name
_MOST = 100  # keys or queues
_GREATEST_PID = 2**22  # Linux assigns no greater one


class Role(enum.StrEnum):
    """The purpose of a process."""

    WORKER = "worker"
    BEAT = "beat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """One process, as it describes itself."""

    role: Role
    host: str
    pid: int
    version: str  # of this package
    started_at: datetime
    at: datetime  # when it was written, by the clock of that process
    key_ids: tuple[str, ...] = ()  # of WORKER_ENCRYPTION_KEYS, in their order; the first one seals
    queues: tuple[str, ...] = ()  # those that a worker takes tasks from

    @property
    def name(self) -> str:
        """``worker web-1 4711``: unique in the fleet."""
        return f"{self.role} {self.host} {self.pid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveProcess:
    """A heartbeat that has not ended yet, with what Redis' clock says about it."""

    heartbeat: Heartbeat
    age: timedelta
    skew: timedelta  # of the clock of the process; positive if it is ahead of Redis'


def encode(heartbeat: Heartbeat) -> bytes:
    return json.dumps(
        {
            "role": heartbeat.role,
            "host": heartbeat.host[:_LONGEST_TEXT],
            "pid": heartbeat.pid,
            "version": heartbeat.version,
            "started_at": heartbeat.started_at.timestamp(),
            "at": heartbeat.at.timestamp(),
            "key_ids": heartbeat.key_ids[:_MOST],
            "queues": heartbeat.queues[:_MOST],
        }
    ).encode()


def decode(value: bytes) -> Heartbeat | None:
    """None for anything that no process of this package has written."""
    if len(value) > LONGEST:
        return None
    try:
        return _heartbeat(json.loads(value))
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
        return None


def _heartbeat(data: Mapping[str, Any]) -> Heartbeat:
    pid = data["pid"]
    if type(pid) is not int or not 0 < pid <= _GREATEST_PID:
        raise ValueError("pid")
    return Heartbeat(
        role=Role(data["role"]),
        host=_text(data["host"]),
        pid=pid,
        version=_text(data["version"]),
        started_at=_time(data["started_at"]),
        at=_time(data["at"]),
        key_ids=_texts(data["key_ids"]),
        queues=_texts(data["queues"]),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT or not value.isprintable():
        raise ValueError("text")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or len(values) > _MOST:
        raise ValueError("list")
    return tuple(map(_text, values))


def _time(value: Any) -> datetime:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("time")
    return datetime.fromtimestamp(value, UTC)
