"""``python -m bench.breaker`` shows that a few refused accounts stop no others, and a broken app registration does.

Six simulated hours for each kind of refusal and each size of the fleet, with the product's services on real stores and
the emulator. After 45 minutes some accounts are refused until the end: a half of them were healthy before, the others
have just signed in. After five hours the client secret has expired, and a quarter of an hour later it is
replaced.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import click
import structlog
from sqlalchemy import text

from bench import report
from bench.refusals import REFUSALS, Refusal
from bench.site import ROOT
from worker.bootstrap import Services, bootstrap
from worker.db import schema
from worker.devkit.emulator import (
    DEFAULT_CLIENT_ID,
    DEFAULT_CLIENT_SECRET,
    Emulator,
    EmulatorServer,
    Fault,
    oauth_error,
)
from worker.devkit.stack import Stack
from worker.domain.account import Grant
from worker.domain.breaker import Breaker
from worker.domain.errors import WorkerError
from worker.domain.token import Secret
from worker.settings import Settings, set_variables, unset_variables
from worker.vault import generate_key

DOCUMENT = ROOT / "docs" / "breaker.md"
SIZES = ((10, 3), (10, 50), (60, 10), (300, 50))  # healthy accounts, refused accounts

_BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
_SWEEP = timedelta(seconds=5)
_MINUTE = timedelta(minutes=1)
_LIFETIME = timedelta(hours=1)
_CYCLE = timedelta(minutes=36)  # between two refreshes of an account, in the mean
_READS = timedelta(minutes=5)  # between two reads of an account
_SIGN_INS = timedelta(minutes=10)  # between two new users
_TENANTS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The times from the beginning at which things happen."""

    refused: timedelta = timedelta(minutes=45)
    broken: timedelta = timedelta(hours=5)
    repaired: timedelta = timedelta(hours=5, minutes=15)
    end: timedelta = timedelta(hours=6)


class Clock(Protocol):
    """The time of services and emulator, which the simulation sets."""

    now: datetime

    def __call__(self) -> datetime: ...


class _Clock:
    def __init__(self) -> None:
        self.now = _BEGIN

    def __call__(self) -> datetime:
        return self.now


@dataclass(slots=True)
class Result:
    """The figures of one run."""

    reads: int = 0
    raised: int = 0  # reads of healthy accounts that got no token
    sign_ins: int = 0
    longest_wait: timedelta = timedelta(0)  # of a new user for the first token, while the registration works
    open_for: timedelta = timedelta(0)  # the breaker, while the registration works
    noticed_after: timedelta | None = None  # from the first refusal of a broken registration until the breaker opened
    most_requests: int = 0  # in a minute, while the registration is broken

    @property
    def is_fair(self) -> bool:
        """Whether all targets are met."""
        noticed = self.noticed_after is not None and self.noticed_after <= timedelta(seconds=30)
        return self.raised == 0 and self.longest_wait <= _MINUTE and noticed and self.most_requests <= 20


class Simulation:
    """One fleet. Time passes in sweeps of beat, each followed by the batches that it sends."""

    def __init__(self, services: Services, emulator: Emulator, clock: Clock) -> None:
        self._services = services
        self._emulator = emulator
        self._clock = clock
        self._healthy: list[str] = []
        self._refused: dict[str, Fault] = {}
        self._waiting: dict[str, datetime] = {}  # new users without a token, and when they signed in
        self._result = Result()
        self._is_broken = self._was_broken = False
        self._broken_at = self._idle_until = clock.now

    def run(self, refusal: Refusal, healthy: int, refused: int, plan: Plan) -> Result:
        """Simulate. The fleet is healthy at first, with due times spread over a cycle."""
        turned = [_address(number, refusal, "turned") for number in range(refused // 2)]
        arriving = [_address(number, refusal, "new") for number in range(refused - len(turned))]
        self._healthy = [f"user{number:03}@tenant{number % _TENANTS}.example" for number in range(healthy)]
        self._start([*self._healthy, *turned])
        begin = self._clock.now
        requests: list[int] = []
        steps = int(plan.end / _SWEEP)
        for step in range(steps):
            passed = step * _SWEEP
            self._clock.now = begin + passed
            if passed == plan.refused:
                self._refused = dict.fromkeys([*turned, *arriving], refusal.fault)
                self._refuse()
                self._sign_in(arriving)
            if passed == plan.broken:
                self._break()
            if passed == plan.repaired:
                self._repair()
            before = self._requests() if self._is_broken else 0
            if passed % _SIGN_INS == timedelta(0) and not self._is_broken:
                self._welcome(f"later{step}@tenant{step % _TENANTS}.example")
            self._sweep()
            self._read(step)
            requests.append(self._requests() - before if self._is_broken else 0)
        minute = int(_MINUTE / _SWEEP)
        self._result.most_requests = max(sum(requests[at : at + minute]) for at in range(len(requests)))
        self._wait(list(self._waiting))
        return self._result

    def _start(self, emails: Sequence[str]) -> None:
        """Sign in and refresh one account after another within a cycle, in an order by chance."""
        shuffled = sorted(emails, key=lambda email: sha256(email.encode()).digest())
        self._clock.now -= _CYCLE
        for email in shuffled:
            self._clock.now += _CYCLE / len(emails)
            self._sign_in([email])
            self._services.refresher.refresh_due()

    def _sign_in(self, emails: Sequence[str]) -> None:
        grants = [
            Grant(
                email=email,
                refresh_token=Secret(
                    self._emulator.enrol(email, access_token_lifetime=(_LIFETIME, _LIFETIME)).refresh_token
                ),
            )
            for email in emails
        ]
        self._services.accounts.save(grants)
        self._idle_until = self._clock.now

    def _welcome(self, email: str) -> None:
        """A user signs in, and the application reads the account at once."""
        self._sign_in([email])
        self._waiting[email] = self._clock.now
        self._result.sign_ins += 1

    def _sweep(self) -> None:
        """Beat's sweep and its batches, unless nothing is due."""
        if self._clock.now < self._idle_until:
            return
        for client in self._services.refresher.batches_due(limit=64):
            self._services.refresher.refresh_due(client)
        breakers = self._services.events.breakers()
        self._note([breaker for breaker in breakers if breaker.failures])
        due_at = self._query("SELECT min(refresh_due_at) FROM mail_credentials")
        self._idle_until = self._clock.now if breakers else due_at

    def _note(self, opened: Sequence[Breaker]) -> None:
        result, now = self._result, self._clock.now
        if opened and not self._was_broken:
            result.open_for += _SWEEP
        if not self._is_broken or result.noticed_after is not None:
            return
        refused_at = self._query("SELECT min(at) FROM refresh_events WHERE code = 'AADSTS7000222' AND at >= :broken_at")
        if opened and refused_at:
            result.noticed_after = now - refused_at

    def _query(self, statement: str) -> Any:
        with self._services.database.begin() as connection:
            return connection.execute(text(statement), {"broken_at": self._broken_at}).scalar_one()

    def _read(self, step: int) -> None:
        self._wait(list(self._waiting))
        turn = int(_READS / _SWEEP)
        for number, email in enumerate(self._healthy):
            if number % turn != step % turn:
                continue
            self._result.reads += 1
            try:
                self._services.tokens.get(email)
            except WorkerError:
                self._result.raised += 1

    def _wait(self, emails: Sequence[str]) -> None:
        """New users read until they have a token, and are healthy accounts from then on."""
        for email in emails:
            waited = self._clock.now - self._waiting[email]
            try:
                self._services.tokens.get(email)
            except WorkerError:
                continue
            finally:
                self._result.longest_wait = max(self._result.longest_wait, waited)
            del self._waiting[email]
            self._healthy.append(email)

    def _requests(self) -> int:
        return self._emulator.statistics().requests

    def _refuse(self) -> None:
        for email, fault in self._refused.items():
            self._emulator.add_fault(fault, email)

    def _break(self) -> None:
        self._is_broken = self._was_broken = True
        self._broken_at = self._clock.now
        self._emulator.add_fault(oauth_error("7000222"))

    def _repair(self) -> None:
        self._is_broken = False
        self._emulator.clear_faults()
        self._refuse()


def _address(number: int, refusal: Refusal, kind: str) -> str:
    tenant = "refused.example" if refusal.is_tenant else f"tenant{number % _TENANTS}.example"
    return f"{kind}{number:03}@{tenant}"


@contextmanager
def simulation(stack: Stack, directory: Path) -> Iterator[Simulation]:
    """A simulation on emptied stores."""
    clock = _Clock()
    with EmulatorServer(directory, Emulator(clock=clock)) as server:
        settings = Settings.model_validate(
            {
                "database_url": stack.database_url,
                "redis_url": stack.redis_url,
                "encryption_keys": generate_key("bench"),
                "client_id": DEFAULT_CLIENT_ID,
                "client_secret": DEFAULT_CLIENT_SECRET,
                "authority": server.authority,
                "ca_bundle": server.ca_bundle,
                "rate": 1000,
            }
        )
        services = bootstrap(settings, utcnow=clock)
        try:
            with services.database.begin() as connection:
                connection.execute(text("TRUNCATE mail_credentials, oauth_clients, refresh_events"))
            services.redis.flushall()
            yield Simulation(services, server.emulator, clock)
        finally:
            services.close()


def run_all(refusals: Sequence[Refusal], sizes: Sequence[tuple[int, int]], plan: Plan) -> Iterator[tuple[str, ...]]:
    """The rows of the table, one run after another."""
    with tempfile.TemporaryDirectory() as directory, Stack(Path(directory) / "stores", durable=False) as stack:
        set_variables({"WORKER_DATABASE_URL": stack.database_url})
        try:
            schema.upgrade()
        finally:
            unset_variables()
        for refusal in refusals:
            for healthy, refused in sizes:
                with simulation(stack, Path(directory)) as fleet:
                    yield row(refusal, healthy, refused, fleet.run(refusal, healthy, refused, plan))


COLUMNS = (
    "refused accounts get",
    "healthy",
    "refused",
    "reads raised",
    "longest wait of a sign-in",
    "breaker open",
    "broken: noticed",
    "requests a minute",
    "",
)


def row(refusal: Refusal, healthy: int, refused: int, result: Result) -> tuple[str, ...]:
    """The cells of one run."""
    noticed = "never" if result.noticed_after is None else f"{result.noticed_after.total_seconds():.0f} s"
    return (
        refusal.name,
        str(healthy),
        str(refused),
        f"{result.raised} of {result.reads:,}",
        f"{result.longest_wait.total_seconds():.0f} s",
        f"{result.open_for.total_seconds():.0f} s",
        noticed,
        str(result.most_requests),
        "fair" if result.is_fair else "**unfair**",
    )


@click.command(help=__doc__)
@click.option("--only", default="", help="Simulate only the refusals whose name contains this.")
@click.option("--size", nargs=2, type=int, help="Healthy and refused accounts, instead of the usual sizes.")
@click.option("--write", is_flag=True, help=f"Put the table into docs/{DOCUMENT.name}.")
def main(only: str, size: tuple[int, int] | None, *, write: bool) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    refusals = [refusal for refusal in REFUSALS if only in refusal.name]
    rows: list[tuple[str, ...]] = [COLUMNS]
    for cells in run_all(refusals, [size] if size else SIZES, Plan()):
        click.echo(" | ".join(cells))
        rows.append(cells)
    if write:
        report.splice(report.aligned(rows), DOCUMENT, target="breaker")


if __name__ == "__main__":
    main()
