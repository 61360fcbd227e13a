"""A writer to the broker may make things slow. No message stops a worker, and none starts anything but our tasks."""

import base64
import json
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from celery import Celery
from redis import Redis

from tests.constants import ANN
from tests.e2e.deployment import Deployment
from tests.factories import emails
from tests.waiting import HANG_LIMIT, wait_for
from worker.broker import TaskSender
from worker.cache import connect
from worker.devkit.emulator import Hang
from worker.devkit.stack.process import Process
from worker.domain.account import account_id

MARKER = "marker-of-the-attacker"
DEEP = "[" * 100_000


@pytest.fixture(name="redis")
def _redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture(name="worker")
def _worker(deployment: Deployment) -> Process:
    return deployment.worker(concurrency=1)


def message(task: str = "worker.refresh_account", *args: Any, body: Any = None, **headers: Any) -> dict[str, Any]:
    """A message as kombu writes it to a list, with the changes of an attacker."""
    identity = str(uuid4())
    content = json.dumps([args, {}, {}]) if body is None else body
    return {
        "body": base64.b64encode(content.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": task, "id": identity, "root_id": identity, **headers},
        "properties": {
            "correlation_id": identity,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "ondemand", "routing_key": "ondemand"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": identity,
        },
    }


def without(*path: str) -> str:
    changed = message(MARKER)
    part = changed
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    return json.dumps(changed)


def with_properties(**properties: Any) -> str:
    changed = message(MARKER)
    changed["properties"] |= properties
    return json.dumps(changed)


UNDECODABLE: dict[str, str | bytes] = {
    "no JSON": MARKER,
    "no text": b"\xff\xfe" + MARKER.encode(),
    "empty": "",
    "a list": json.dumps([MARKER]),
    "null": "null",
    "a string": json.dumps(MARKER),
    "an empty object": "{}",
    "deep": DEEP,
    "a deep object": '{"a":' * 100_000,
    "an unknown type": json.dumps({"__type__": "uuid", "__value__": MARKER}),
    "a number without end": "9" * 5_000,
    "no properties": without("properties"),
    "no tag": without("properties", "delivery_tag"),
    "no delivery": without("properties", "delivery_info"),
    "no exchange": without("properties", "delivery_info", "exchange"),
    "no headers": without("headers"),
    "no task": without("headers", "task"),
    "no id": without("headers", "id"),
    "no body": without("body"),
    "no content type": without("content-type"),
    "headers that are a list": json.dumps({**message(), "headers": [MARKER]}),
    "a body that is a number": json.dumps({**message(), "body": 7}),
    "a body that is not base64": json.dumps({**message(), "body": "%" + MARKER}),
    "an unknown encoding": with_properties(body_encoding=MARKER),
    "a tag that is a list": with_properties(delivery_tag=[MARKER]),
    "properties of the wrong type": json.dumps({**message(), "properties": MARKER}),
    "a pickle": json.dumps({**message(), "content-type": "application/x-python-serialize"}),
    "compression": json.dumps(message(compression="zlib")),
    "a clock without end": json.dumps(message(clock=10**4299)),
    "a deep body": json.dumps(message(body=DEEP)),
    "a body without arguments": json.dumps(message(body="[]")),
    "a body of another shape": json.dumps(message(body=json.dumps({"args": [MARKER]}))),
    "a task that is a list": json.dumps({**message(), "headers": {"task": [MARKER], "id": MARKER}}),
    "an unknown task": json.dumps(message(MARKER)),
}


def test_undecodable_messages_are_dropped(deployment: Deployment, worker: Process, redis: Redis) -> None:
    """Each costs one log line without its content. The worker goes on, and so does the next message."""
    deployment.add_due_accounts(ANN)
    for value in UNDECODABLE.values():
        redis.lpush("ondemand", value)
    deployment.send("worker.refresh_account", str(account_id(ANN)), queue="ondemand")

    wait_for(deployment.all_refreshed, about="the refresh", processes=[worker])

    assert worker.output().count("Dropped a message") == len(UNDECODABLE)
    assert MARKER not in worker.output()
    assert "Traceback" not in worker.output()
    assert redis.llen("ondemand") == 0
    assert redis.hlen("unacked") == 0


def test_a_key_under_the_name_of_a_queue_stops_no_worker(deployment: Deployment, worker: Process, redis: Redis) -> None:
    deployment.add_due_accounts(ANN)
    redis.mset({"ondemand": MARKER, "sweep\x06\x163": MARKER})
    wait_for(lambda: not redis.exists("ondemand", "sweep\x06\x163"), about="the keys to be gone", processes=[worker])
    deployment.send("worker.refresh_account", str(account_id(ANN)), queue="ondemand")

    wait_for(deployment.all_refreshed, about="the refresh", processes=[worker])

    assert MARKER not in worker.output()


HEADERS: dict[str, dict[str, Any]] = {
    "a time limit": {"timelimit": [1, 1]},
    "a time limit of another type": {"timelimit": MARKER},
    "an instant far ahead": {"eta": "9999-12-31T23:59:59+00:00"},
    "a malformed instant": {"eta": MARKER},
    "an instant of another type": {"eta": [MARKER]},
    "an expiry in the past": {"expires": "2001-01-01T00:00:00+00:00"},
    "a malformed expiry": {"expires": MARKER},
    "odd retries": {"retries": MARKER},
    "a group": {"group": MARKER, "group_index": MARKER},
    "another name": {"shadow": MARKER, "argsrepr": MARKER, "origin": MARKER},
    "stamps": {"stamped_headers": [MARKER], "stamps": MARKER},
    "another language": {"lang": MARKER},
}


def test_headers_change_no_task(deployment: Deployment, worker: Process, redis: Redis) -> None:
    """Microsoft takes three seconds for the first, which is longer than the time limit in its message."""
    addresses = emails(len(HEADERS))
    deployment.add_due_accounts(*addresses)
    deployment.emulator.add_fault(Hang(3), times=1)
    for address, headers in zip(addresses, HEADERS.values(), strict=True):
        redis.lpush("ondemand", json.dumps(message("worker.refresh_account", str(account_id(address)), **headers)))

    wait_for(deployment.all_refreshed, about="every refresh", processes=[worker])

    assert deployment.emulator.statistics().requests == len(HEADERS)
    assert MARKER not in worker.output()
    assert "Traceback" not in worker.output()


def test_a_message_causes_no_other_task(deployment: Deployment, worker: Process, redis: Redis) -> None:
    """Celery publishes the tasks that a message names as its successors, of any name and to any queue."""
    deployment.add_due_accounts(ANN)
    other: dict[str, Any] = {
        "task": "attack",
        "args": [],
        "kwargs": {},
        "options": {"queue": MARKER},
        "subtask_type": None,
    }
    embedded = {
        "callbacks": [other],
        "errbacks": [other],
        "chain": [other],
        "chord": {**other, "options": {"queue": MARKER, "task_id": "x"}},
    }
    body = json.dumps([[str(account_id(ANN))], {}, embedded])
    redis.lpush("ondemand", json.dumps(message(body=body)))

    wait_for(lambda: "succeeded" in worker.output(), about="the refresh", processes=[worker])

    assert deployment.all_refreshed()
    assert redis.llen(MARKER) == 0
    assert MARKER not in worker.output()


ARGUMENTS: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("worker.refresh_account", [], {}),
    ("worker.refresh_account", [MARKER], {}),
    ("worker.refresh_account", [str(account_id(ANN)), 1e300], {}),
    ("worker.refresh_account", [str(account_id(ANN)), float("nan")], {}),
    ("worker.refresh_account", [str(account_id(ANN)), MARKER], {}),
    ("worker.refresh_account", [str(account_id(ANN)), None, MARKER], {}),
    ("worker.refresh_account", [str(account_id(ANN)), None, 10**30], {}),
    ("worker.refresh_account", [str(account_id(ANN)), None, None, MARKER], {}),
    ("worker.refresh_account", [], {"account_id": MARKER}),
    ("worker.refresh_batch", [7], {}),
    ("worker.refresh_batch", [MARKER * 100], {}),
    ("worker.sweep", [MARKER], {}),
    ("worker.prune_events", [], {MARKER: 1}),
    ("celery.backend_cleanup", [], {}),
    ("celery.chain", [], {}),
]


def test_only_known_tasks_with_known_arguments_start(deployment: Deployment, worker: Process, redis: Redis) -> None:
    for task, args, kwargs in ARGUMENTS:
        redis.lpush("ondemand", json.dumps(message(task, body=json.dumps([args, kwargs, {}]))))
    wait_for(
        lambda: worker.output().count("Dropped a message") == len(ARGUMENTS),
        about="all to be dropped",
        processes=[worker],
    )
    assert MARKER not in worker.output()
    assert " received" not in worker.output()
    assert deployment.emulator.statistics().requests == 0


SWITCHED_OFF: dict[str, dict[str, Any]] = {
    "shutdown": {},
    "pool_restart": {},
    "rate_limit": {"task_name": "worker.refresh_account", "rate_limit": "1/h"},
    "time_limit": {"task_name": "worker.refresh_account", "hard": 1, "soft": 1},
    "cancel_consumer": {"queue": "ondemand"},
    "add_consumer": {"queue": MARKER},
    "revoke": {"task_id": MARKER},
    "revoke_by_stamped_headers": {"headers": {"x": "y"}},
    "terminate": {"task_id": MARKER, "signal": "KILL"},
    "pool_grow": {"n": 50},
    "pool_shrink": {"n": 1},
    "autoscale": {"max": 0, "min": 0},
    "disable_events": {},
    "election": {"id": "1", "topic": "task", "action": {"task": MARKER}},
    "hello": {"from_node": "eve@host", "revoked": {MARKER: 0}},
    "objgraph": {},
    "memdump": {},
}


def _inspect(app: Celery, command: str, worker: Process) -> dict[str, Any]:
    """The worker's reply. The test repeats the command, because a broadcast or a reply may be lost."""
    inspect = app.control.inspect(timeout=2, limit=1)
    reply: dict[str, Any] = wait_for(getattr(inspect, command), about=f"a reply to {command}", processes=[worker])
    return reply


def test_broadcasts_change_no_worker(deployment: Deployment, worker: Process, redis: Redis) -> None:
    for junk in (
        b"",
        b"\xff",
        MARKER,
        DEEP,
        "[]",
        "{}",
        json.dumps(message(body=DEEP)),
        json.dumps(message(body="[]")),
    ):
        redis.publish("/0.celery.pidbox", junk)
    with deployment.broker() as app:
        for command, arguments in SWITCHED_OFF.items():
            app.control.broadcast(command, arguments=arguments)
        [active_queues] = _inspect(app, "active_queues", worker).values()
        [revoked] = _inspect(app, "revoked", worker).values()
        [stats] = _inspect(app, "stats", worker).values()
    assert {each["name"] for each in active_queues} == {"ondemand", "sweep", "refresh"}
    assert revoked == []
    assert stats["pool"]["max-concurrency"] == 1

    deployment.add_due_accounts(ANN)
    deployment.emulator.add_fault(Hang(3), times=1)
    deployment.send("worker.refresh_account", str(account_id(ANN)), queue="ondemand")
    wait_for(deployment.all_refreshed, about="the refresh", processes=[worker])
    assert deployment.emulator.statistics().requests == 1


def test_inspection_shows_no_password(deployment: Deployment, worker: Process, redis_url: str) -> None:
    password = str(urlsplit(redis_url).password)
    with deployment.broker() as app:
        for command in ("ping", "conf", "report", "stats", "active_queues", "registered", "active", "reserved"):
            arguments = {"with_defaults": True} if command == "conf" else {}
            answers = app.control.broadcast(command, arguments=arguments, reply=True, timeout=HANG_LIMIT, limit=1)
            [answer] = answers or []
            assert "error" not in next(iter(answer.values())), command
            assert password not in json.dumps(answer), command
    assert password not in worker.output()


def test_an_operator_may_switch_remote_control_on(deployment: Deployment) -> None:
    worker = deployment.worker(WORKER_REMOTE_CONTROL="true")
    with deployment.broker() as app:
        app.control.broadcast("shutdown")

    wait_for(lambda: not worker.alive(), about="the worker to end")


def test_a_clock_that_is_wrong_stops_no_task(deployment: Deployment, worker: Process, redis: Redis) -> None:
    """The clock of beat is ten minutes behind. Celery discards what it sends, by the header `expires`."""
    deployment.add_due_accounts(ANN)
    past = "2001-01-01T00:00:00+00:00"
    redis.lpush("sweep", *(json.dumps(message("worker.sweep", expires=past)) for _ in range(300)))

    wait_for(deployment.all_refreshed, about="the refresh", processes=[worker])
    wait_for(lambda: redis.llen("sweep") == 0, about="the sweeps to be gone", processes=[worker])

    assert worker.output().count("Task worker.sweep") < 30, "one sweep does the work of those that wait"


def test_beat_and_consumers_send_no_expiry(deployment: Deployment, redis: Redis) -> None:
    beat = deployment.celery("beat")
    sender = TaskSender(deployment.environment["WORKER_REDIS_URL"])
    sender.request_refresh(account_id(ANN), min_ttl=None, rejected=None)
    sender.close()
    wait_for(lambda: redis.llen("sweep"), about="a sweep", processes=[beat])

    for queue in ("sweep", "ondemand"):
        sent: Any = redis.lindex(queue, 0)
        assert json.loads(sent)["headers"]["expires"] is None


AHEAD = """
import sys
from datetime import timedelta
from worker import clock
utcnow = clock.utcnow
clock.utcnow = lambda: utcnow() + timedelta(minutes=10)
from celery.__main__ import main
sys.exit(main())
"""


def test_a_wrong_clock_is_logged_once_with_its_host(deployment: Deployment, worker: Process) -> None:
    deployment.add_due_accounts(ANN)
    argv = ["-A", "worker", "worker", "--concurrency", "2", "--hostname", "ahead@here"]
    ahead = deployment.start([sys.executable, "-c", AHEAD, *argv])
    wait_for(lambda: "Clock differs" in ahead.output(), about="the warning", processes=[ahead])
    beat = deployment.celery("beat")
    wait_for(deployment.all_refreshed, about="the refresh", processes=[ahead, beat])

    [line] = [json.loads(line) for line in ahead.output().splitlines() if "Clock differs" in line]
    assert (line["host"], line["seconds"], line["level"]) == ("ahead@here", 600, "warning")
    assert "Clock differs" not in worker.output()
