"""The worker as an operator deploys it: settings in the environment, and processes and commands that use them.

Tests see no internals of a process, but its log, its exit code, the stores and the emulator.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from celery import Celery
from kombu import pools

from tests.e2e.commands import Commands
from tests.waiting import HANG_LIMIT, wait_for
from worker.bootstrap import Services, bootstrap
from worker.devkit.emulator import Emulator, EmulatorServer
from worker.devkit.stack.process import Process
from worker.domain.account import DEFAULT_CLIENT, Account, Grant
from worker.domain.token import Secret
from worker.settings import Settings, load

T = TypeVar("T")

BIN = Path(sys.executable).parent
_INHERITED = ("PATH", "HOME", "LD_LIBRARY_PATH")


class Deployment:
    """Settings, their emulator, and all processes that were started with them."""

    def __init__(
        self, directory: Path, environment: dict[str, str], server: EmulatorServer, commands: Commands
    ) -> None:
        self.directory = directory
        self.environment = environment
        self.server = server
        self._commands = commands
        self._processes: list[Process] = []

    @property
    def emulator(self) -> Emulator:
        return self.server.emulator

    @property
    def settings(self) -> Settings:
        """The settings as a process of this deployment reads them."""
        with pytest.MonkeyPatch.context() as environment:
            for name, value in self.environment.items():
                environment.setenv(name, value)
            return load(Settings)

    def celery(self, *arguments: str, **environment: str) -> Process:
        """Start ``celery -A worker ARGUMENTS``."""
        return self.start([str(BIN / "celery"), "-A", "worker", *arguments], **environment)

    def worker(self, name: str = "worker", *arguments: str, concurrency: int = 2, **environment: str) -> Process:
        """Start a worker. Returns once it is ready."""
        options = ("--concurrency", str(concurrency), "--hostname", f"{name}@%h", *arguments)
        process = self.celery("worker", *options, **environment)
        wait_for(lambda: " ready." in process.output(), about="the worker to be ready", processes=[process])
        return process

    def start(self, argv: list[str], **environment: str) -> Process:
        log = self.directory / f"process-{len(self._processes)}.log"
        process = Process(argv, log=log, environment={**self.environment, **environment})
        self._processes.append(process)
        return process

    def cli(self, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``token-worker ARGUMENTS`` to its end."""
        environment = {**inherited(), **self.environment, **environment}
        return self._commands.run(arguments, stdin=stdin, directory=self.directory, environment=environment)

    def run(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=HANG_LIMIT,
            cwd=self.directory,
            env={**inherited(), **self.environment},
        )

    @contextmanager
    def services(self) -> Iterator[Services]:
        """The services in this process, as a consumer has them."""
        opened = bootstrap(self.settings)
        try:
            yield opened
        finally:
            opened.close()

    def send(self, task: str, *arguments: str, queue: str) -> None:
        """Queue a task by its name, as any other Celery application would."""
        with self.broker() as app:
            app.send_task(task, arguments, queue=queue)

    @contextmanager
    def broker(self) -> Iterator[Celery]:
        """Another Celery application at the same broker."""
        with Celery(broker=self.environment["WORKER_REDIS_URL"]) as app:
            try:
                yield app
            finally:
                pools.reset()  # kombu's pools are global, and the next test may have another Redis

    def add_due_accounts(self, *emails: str, lifetime: timedelta | None = None, client: str = DEFAULT_CLIENT) -> None:
        """Sign mailboxes in at the emulator and store their refresh tokens without access tokens. All are due."""
        granted = [self.emulator.enrol(email, access_token_lifetime=lifetime) for email in emails]
        grants = [
            Grant(email=grant.email, refresh_token=Secret(grant.refresh_token), client=client) for grant in granted
        ]
        with self.services() as services:
            services.accounts.save(grants)

    def accounts(self) -> dict[str, Account]:
        with self.services() as services:
            return {account.email: account for account in services.accounts.list()}

    def all_refreshed(self, *, at_least: int = 1) -> bool:
        """Whether every account has been refreshed at least so many times since it was stored."""
        return self.sql("SELECT count(*) FROM mail_credentials WHERE version <= %s", at_least) == [(0,)]

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        url = self.environment["WORKER_DATABASE_URL"].replace("postgresql+psycopg://", "postgresql://")
        with closing(psycopg.connect(url, autocommit=True)) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        for process in self._processes:
            process.kill()


def inherited() -> dict[str, str]:
    """The part of this environment that a command may see."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}
