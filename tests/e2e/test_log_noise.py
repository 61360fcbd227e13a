"""While a store is away, each process logs one line with advice, without a traceback, and repeats it once a minute."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from redis import Redis

from tests.e2e.deployment import Deployment
from tests.waiting import wait_for
from worker.cache import connect
from worker.devkit.stack import Stack
from worker.devkit.stack.process import Process

ERRORS = ("error", "critical")
ATTEMPTS = 3  # of beat and of a worker, that fail without a further line


@pytest.fixture(name="redis")
def _redis(redis_url: str) -> Iterator[Redis]:
    with closing(connect(redis_url)) as client:
        yield client


@pytest.fixture(name="processes")
def _processes(deployment: Deployment) -> tuple[Process, Process]:
    """A worker that has swept, and beat."""
    worker, beat = deployment.worker(concurrency=1), deployment.celery("beat")
    wait_for(lambda: swept(worker) > 0, about="a sweep", processes=[worker, beat])
    return worker, beat


def swept(worker: Process) -> int:
    return worker.output().count("Task worker.sweep")


def lines(process: Process) -> list[dict[str, str]]:
    """The lines of errors."""
    parsed = [json.loads(line) for line in process.output().splitlines() if line.startswith("{")]
    return [line for line in parsed if line["level"] in ERRORS]


def check_one_line(process: Process, event: str, advice: str) -> None:
    """Another line may come once as well, for a task that was under way."""
    found = [(line["event"], line.get("reason", "")) for line in lines(process)]
    assert len([each for each in found if each[0].startswith(event)]) == 1, found
    assert len({name for name, _ in found}) == len(found), found
    assert advice in dict(found)[next(name for name, _ in found if name.startswith(event))]
    assert "Traceback" not in process.output()


@contextmanager
def replica(redis: Redis) -> Iterator[None]:
    redis.replicaof("127.0.0.1", 1)
    try:
        yield
    finally:
        redis.replicaof("NO", "ONE")


@contextmanager
def full(redis: Redis) -> Iterator[None]:
    redis.config_set("maxmemory", "1mb")
    try:
        yield
    finally:
        redis.config_set("maxmemory", "0")


def test_a_replica(processes: tuple[Process, Process], redis: Redis) -> None:
    """Celery's worker would connect dozens of times within a second."""
    worker, beat = processes
    with replica(redis):
        before = redis.info()["total_connections_received"]
        for process in processes:
            wait_for(lambda process=process: lines(process), about="an error", processes=processes)  # type: ignore[misc]
        sent = beat.output().count("Sending due task sweep")
        wait_for(
            lambda: beat.output().count("Sending due task sweep") > sent + ATTEMPTS, about="more", processes=processes
        )
        connections = redis.info()["total_connections_received"] - before
    for process in processes:
        check_one_line(process, "Broker cannot be used", "it is read-only, as a replica is")
    assert connections < 10 * ATTEMPTS
    count = swept(worker)
    wait_for(lambda: swept(worker) > count, about="a sweep afterwards", processes=processes)


def test_a_full_redis(processes: tuple[Process, Process], redis: Redis) -> None:
    worker, beat = processes
    with full(redis):
        wait_for(lambda: lines(beat), about="an error of beat", processes=processes)
        sent = beat.output().count("Sending due task sweep")
        wait_for(
            lambda: beat.output().count("Sending due task sweep") > sent + ATTEMPTS, about="more", processes=processes
        )
    check_one_line(beat, "Broker cannot be used", "it is full (maxmemory)")
    assert "Traceback" not in worker.output()


@pytest.mark.parametrize("break_postgres", ["stop", "deny"])
def test_postgres(
    deployment: Deployment, processes: tuple[Process, Process], stack: Stack, break_postgres: str
) -> None:
    worker, _ = processes
    mend: Callable[[], object]
    if break_postgres == "stop":
        stack.postgres.kill()
        mend, advice = stack.postgres.start, "the database cannot be used: "
    else:
        deployment.sql("ALTER TABLE mail_credentials RENAME TO elsewhere")
        advice = "the database's tables are missing or old; run: token-worker migrate"

        def mend() -> object:
            return deployment.sql("ALTER TABLE elsewhere RENAME TO mail_credentials")

    try:
        wait_for(lambda: lines(worker), about="an error", processes=processes)
        received = worker.output().count("received")
        wait_for(
            lambda: worker.output().count("received") > received + ATTEMPTS, about="more sweeps", processes=processes
        )
    finally:
        mend()
    check_one_line(worker, "Task cannot be done", advice)
