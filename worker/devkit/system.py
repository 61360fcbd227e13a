"""The whole system on one machine: stores, emulator, worker, beat and Flower. It starts within seconds.

WORKER_DATABASE_URL and WORKER_REDIS_URL replace the embedded stores, WORKER_CLIENT_ID replaces the emulator by a real
app registration. The emulator is never used with other stores than its own, because it would reject the accounts in
them, and their users would have to sign in again.
"""

import base64
import os
import secrets
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from datetime import timedelta
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from pydantic import SecretStr

from worker.bootstrap import Services, bootstrap
from worker.celery import Worker
from worker.db import schema
from worker.devkit.emulator import Emulator, EmulatorServer
from worker.devkit.stack import Stack, StackError
from worker.devkit.stack.process import Process, ticks
from worker.domain.account import Grant
from worker.domain.errors import ConfigurationError
from worker.domain.token import Secret
from worker.settings import Settings, load, set_variables, setting_names, variables
from worker.vault import generate_key

_FLOWER_PORT = 5555
_START_LIMIT = 30.0  # seconds until a process must answer
_PORT_ATTEMPTS = 5
_PORT_IN_USE = "Address already in use"
_STORES = ("WORKER_DATABASE_URL", "WORKER_REDIS_URL")


class System:
    """The system, as a context manager. Without a directory its data is temporary and removed at the end."""

    services: Services
    directory: Path

    def __init__(self, directory: Path | None, *, access_token_lifetime: tuple[timedelta, timedelta]) -> None:
        self._given_directory = directory
        self._lifetime = access_token_lifetime
        self.emulator: Emulator | None = None
        self.flower_url = ""
        self.flower_login = f"flower:{secrets.token_urlsafe(9)}"
        self._named: set[str] = set()  # settings that the operator has set
        self._processes: dict[str, Process] = {}
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self.directory = self._given_directory or _temporary_directory(undo)
            self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._named = setting_names()
            emulated = _is_emulated(self._named)
            environment = {**self._stores(undo, emulated=emulated), **self._encryption_keys()}
            if emulated:
                environment |= self._start_emulator(undo)
            set_variables({"WORKER_SWEEP_INTERVAL": "2", "WORKER_LOG_FORMAT": "json", **environment, **variables()})
            self._write_environment()
            schema.upgrade()
            self.services = bootstrap(load(Settings))
            undo.callback(self.services.close)
            self._start_processes(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ValueError):  # raised outside the main thread, which signals do not interrupt
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, signal.SIG_IGN)  # a second Ctrl-C must not stop the clean-up
        self._undo.close()

    def enrol(self, mailboxes: int) -> list[str]:
        """Sign mailboxes in to the emulator and store their grants. Returns the addresses."""
        if self.emulator is None:
            return []
        emails = [f"user{number:02}@contoso.test" for number in range(1, mailboxes + 1)]
        granted = [self.emulator.enrol(email) for email in emails]
        now = self.emulator.clock()
        self.services.accounts.save(
            [
                Grant(
                    email=grant.email,
                    refresh_token=Secret(grant.refresh_token),
                    access_token=Secret(grant.access_token),
                    expires_at=now + timedelta(seconds=grant.expires_in),
                )
                for grant in granted
            ]
        )
        return emails

    def dead(self) -> list[str]:
        """The processes that should be running and are not."""
        return [name for name, process in self._processes.items() if not process.alive()]

    def parts(self) -> dict[str, str]:
        """The address of each part, without a password, and the setting that names it."""
        settings = load(Settings)
        identity = ", ".join(each.authority for each in settings.registrations)
        return {
            "Postgres": self._place(settings.database_url, "WORKER_DATABASE_URL"),
            "Redis": self._place(settings.redis_url, "WORKER_REDIS_URL"),
            "Identity": f"{identity}  ({'emulator' if self.emulator else 'WORKER_CLIENT_ID'})",
        }

    def _place(self, url: SecretStr, setting: str) -> str:
        parts = urlsplit(url.get_secret_value())
        address = parts.netloc.rpartition("@")[2]
        return f"{address}{parts.path}  ({setting if setting in self._named else 'embedded'})"

    def _stores(self, undo: ExitStack, *, emulated: bool) -> dict[str, str]:
        if set(_STORES) <= self._named:
            return {}
        # In different directories, so that the emulator never gets accounts of a real app registration.
        stack = undo.enter_context(Stack(self.directory / ("stores" if emulated else "real-stores")))
        return dict(zip(_STORES, (stack.database_url, stack.redis_url), strict=True))

    def _start_emulator(self, undo: ExitStack) -> dict[str, str]:
        self.emulator = Emulator(access_token_lifetime=self._lifetime)
        server = undo.enter_context(EmulatorServer(self.directory, self.emulator))
        return server.environment

    @property
    def environment_file(self) -> Path:
        """A file of shell lines with the settings of this system, for other commands."""
        return self.directory / "env"

    def _write_environment(self) -> None:
        self.environment_file.unlink(missing_ok=True)
        self.environment_file.touch(mode=0o600)
        lines = (f"export {name}={shlex.quote(value)}\n" for name, value in sorted(variables().items()))
        self.environment_file.write_text("".join(lines))

    def _encryption_keys(self) -> dict[str, str]:
        kept = self.directory / "encryption-keys"
        if not kept.exists():
            fresh = kept.with_suffix(".new")
            fresh.touch(mode=0o600)
            fresh.write_text(generate_key("local"))
            fresh.replace(kept)  # atomic, because half a key would make the data unreadable
        return {"WORKER_ENCRYPTION_KEYS": kept.read_text()}

    def _start_processes(self, undo: ExitStack) -> None:
        undo.callback(self._stop_processes)
        self._start("worker", "worker", "--concurrency", "2", "--hostname", "worker@%h")
        self._start("beat", "beat")
        self._start_flower()
        self._wait_for_worker()

    def _start(self, name: str, *arguments: str, **environment: str) -> Process:
        argv = [sys.executable, "-m", "celery", "-A", "worker", *arguments]
        log = self.directory / f"{name}.log"
        process = self._processes[name] = Process(argv, log=log, environment={**os.environ, **environment})
        return process

    def _start_flower(self) -> None:
        for wanted in (_FLOWER_PORT, *(0,) * _PORT_ATTEMPTS):
            port = _free_port(wanted)
            self.flower_url = f"http://127.0.0.1:{port}/"
            flower = self._start(
                "flower",
                "flower",
                FLOWER_PORT=str(port),
                FLOWER_ADDRESS="127.0.0.1",
                FLOWER_BASIC_AUTH=self.flower_login,
            )
            if self._answers(flower, port):
                return
            if _PORT_IN_USE not in flower.output():
                break
        raise self._not_started("flower")

    def _answers(self, flower: Process, port: int) -> bool:
        """Whether this Flower listens on the port. Another process that took the port would not know the login."""
        login = base64.b64encode(self.flower_login.encode()).decode()
        for _tick in ticks(_START_LIMIT):
            if not flower.alive():
                return False
            with closing(HTTPConnection("127.0.0.1", port, timeout=1)) as connection, suppress(OSError, HTTPException):
                connection.request("GET", "/api/task/types", headers={"Authorization": f"Basic {login}"})
                if connection.getresponse().status == HTTPStatus.OK:
                    return True
        return False

    def _wait_for_worker(self) -> None:
        app = Worker()
        end = time.monotonic() + _START_LIMIT
        while not app.control.ping(timeout=0.5):
            if self.dead() or time.monotonic() > end:
                raise self._not_started(next(iter(self.dead()), "worker"))

    def _not_started(self, name: str) -> StackError:
        return StackError(f"the {name} did not start. Its log ends with:\n{self._processes[name].output()[-2000:]}")

    def _stop_processes(self) -> None:
        """Stop all at once, because each takes some seconds."""
        with ThreadPoolExecutor(len(self._processes) or 1) as pool:
            list(pool.map(Process.stop, self._processes.values()))


def _is_emulated(names: set[str]) -> bool:
    """Whether to use the emulator. Raises ConfigurationError if real and emulated parts are mixed."""
    stores = [name for name in _STORES if name in names]
    if len(stores) == 1:
        msg = f"{stores[0]} is set, but not {next(iter(set(_STORES) - set(stores)))}; set both, or neither"
        raise ConfigurationError(msg)
    emulated = not any(name == "WORKER_CLIENT_ID" or name.startswith("WORKER_CLIENTS__") for name in names)
    if emulated and stores:
        msg = (
            "WORKER_DATABASE_URL and WORKER_REDIS_URL are set, and no app registration is, so the emulator would reject"
            " the accounts stored there; set WORKER_CLIENT_ID and its secret, or unset both URLs"
        )
        raise ConfigurationError(msg)
    return emulated


def _temporary_directory(undo: ExitStack) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="token-worker-"))
    undo.callback(shutil.rmtree, directory, ignore_errors=True)
    return directory


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    msg = "no free port on 127.0.0.1"
    raise StackError(msg)
