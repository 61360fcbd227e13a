"""The demo: consumers read tokens with short lives, Redis is flushed half-way, and a verdict is printed at the end."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
import jwt
import redis
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from worker import clock
from worker.devkit.emulator import Emulator
from worker.devkit.system import System
from worker.domain.account import Account, Status
from worker.domain.errors import WorkerError
from worker.service.tokens.reader import TokenReader
from worker.settings import Settings, load, unset_variables

MAILBOXES = 25
LIFETIME = timedelta(seconds=60), timedelta(seconds=90)  # of access tokens, from and to

_READERS = 4
_READ_INTERVAL = 0.02  # seconds between two reads of one reader; nearly 200 reads per second suit any machine
_VIEW_INTERVAL = 0.5  # seconds between two frames of the table
_LINE_INTERVAL = 5.0  # seconds between two lines, where there is no terminal
_LINES_AROUND = 4  # of the live table: its heading, two lines of totals, and the line of the cursor


class Readers:
    """Consumers in threads. They check that a mail server would accept each token at the time of the read."""

    def __init__(self, tokens: TokenReader, emulator: Emulator, emails: Sequence[str]) -> None:
        self._tokens = tokens
        self._key = emulator.key.public
        self._emails = emails
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self.reads = self.stale = 0
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._read_all, args=(n,), daemon=True) for n in range(_READERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _read_all(self, offset: int) -> None:
        turn = offset
        while not self._stopped.wait(_READ_INTERVAL):
            self._read(self._emails[turn % len(self._emails)])
            turn += 1

    def _read(self, email: str) -> None:
        try:
            live = self._is_live(self._tokens.get(email).value)
        except Exception as error:  # noqa: BLE001 - a reader that has ended would find no more errors
            with self._lock:
                self.errors.append(str(error) if isinstance(error, WorkerError) else repr(error))
            return
        with self._lock:
            self.reads += 1
            self.stale += not live

    def _is_live(self, token: str) -> bool:
        with suppress(jwt.InvalidTokenError):
            jwt.decode(token, self._key, algorithms=["RS256"], options={"verify_aud": False})
            return True
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The figures of the demo, and whether they are as they should be."""

    refreshes: int
    never_refreshed: int
    reads: int
    stale: int
    failed: int
    sign_ins: int
    dead: Sequence[str]

    @property
    def good(self) -> bool:
        bad = self.stale or self.failed or self.sign_ins or self.never_refreshed or self.dead
        return bool(self.reads) and not bad

    def lines(self) -> list[str]:
        lines = [
            f"refreshes done   {self.refreshes}",
            f"reads served     {self.reads}",
            f"stale reads      {self.stale}",
            f"failed reads     {self.failed}",
            f"sign-ins needed  {self.sign_ins}",
        ]
        if self.never_refreshed:
            lines.append(f"never refreshed  {self.never_refreshed} mailboxes")
        if self.dead:
            lines.append(f"processes lost   {', '.join(self.dead)}")
        return [*lines, "verdict          " + ("OK" if self.good else "FAILED")]


def demo(*, seconds: int) -> bool:
    """Run the demo; True if the verdict is good."""
    unset_variables()  # the demo flushes Redis and adds mailboxes, so it must not use the stores of a real system
    console = Console()
    console.print("Starting Postgres, Valkey, the identity emulator, a worker, beat and Flower ...")
    with System(None, access_token_lifetime=LIFETIME) as system:
        emulator = system.emulator
        assert emulator is not None
        emails = system.enrol(MAILBOXES)
        _announce(console, system)
        readers = Readers(system.services.tokens, emulator, emails)
        readers.start()
        try:
            _watch(console, system, readers, emulator, seconds=seconds)
        finally:
            readers.stop()
        verdict = _judge(system, emulator, readers)
    for line in verdict.lines():
        console.print(line, highlight=False)
    for error in readers.errors[:5]:
        console.print(f"  {error}", highlight=False)
    return verdict.good


def up(directory: Path) -> None:
    """Run the system until Ctrl-C, keeping its data in ``directory``."""
    console = Console()
    console.print("Starting everything ...")
    with System(directory, access_token_lifetime=(timedelta(minutes=60), timedelta(minutes=90))) as system:
        system.enrol(MAILBOXES)
        for part, place in system.parts().items():
            console.print(f"{part:<9} {place}", highlight=False, soft_wrap=True)
        _announce(console, system)
        console.print(f"Data and logs: {directory}", highlight=False, soft_wrap=True)
        console.print(
            f"In another shell: . {system.environment_file} && token-worker list", highlight=False, soft_wrap=True
        )
        console.print("Stop with Ctrl-C.")
        while not system.dead():
            time.sleep(1)
        msg = f"the {system.dead()[0]} has stopped; see its log in {directory}"
        raise click.ClickException(msg)


def _announce(console: Console, system: System) -> None:
    console.print(f"Flower    {system.flower_url}  (sign in as {system.flower_login})", highlight=False, soft_wrap=True)


def _watch(console: Console, system: System, readers: Readers, emulator: Emulator, *, seconds: int) -> None:
    begin, flushed, next_line = time.monotonic(), False, 0.0
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while (elapsed := time.monotonic() - begin) < seconds:
            if not flushed and elapsed > seconds / 2:
                _flush_redis()
                flushed = True
                console.print(f"{elapsed:4.0f} s  Redis flushed: cache and queues are gone", highlight=False)
            accounts = list(system.services.accounts.list())
            if console.is_terminal:
                picture = _picture(accounts, readers, emulator, left=seconds - elapsed, height=console.height)
                live.update(picture, refresh=True)
            elif elapsed >= next_line:
                next_line += _LINE_INTERVAL
                console.print(_line(accounts, readers, emulator, elapsed), highlight=False, soft_wrap=True)
            time.sleep(_VIEW_INTERVAL)


def _flush_redis() -> None:
    with redis.Redis.from_url(load(Settings).redis_url.get_secret_value()) as client:
        client.flushall()


def _judge(system: System, emulator: Emulator, readers: Readers) -> Verdict:
    accounts = list(system.services.accounts.list())
    statistics = emulator.statistics()
    return Verdict(
        refreshes=statistics.refreshes,
        never_refreshed=sum(not account.refreshes for account in statistics.by_account.values()),
        reads=readers.reads,
        stale=readers.stale,
        failed=len(readers.errors),
        sign_ins=sum(account.status is not Status.ACTIVE for account in accounts),
        dead=system.dead(),
    )


def _line(accounts: Sequence[Account], readers: Readers, emulator: Emulator, elapsed: float) -> str:
    now = clock.utcnow()
    shortest = min((_life(account, now) for account in accounts), default=0.0)
    return (
        f"{elapsed:4.0f} s  {len(accounts)} mailboxes  {emulator.statistics().refreshes} refreshes"
        f"  {readers.reads} reads  {readers.stale} stale  shortest life left {shortest:.0f} s"
    )


def _picture(accounts: Sequence[Account], readers: Readers, emulator: Emulator, *, left: float, height: int) -> Group:
    """As many mailboxes as fit between a heading and two lines of totals."""
    now, statistics = clock.utcnow(), emulator.statistics()
    shown = accounts[: max(1, height - _LINES_AROUND)]
    table = Table("mailbox", "state", "token life left", "", "refreshes", box=None, header_style="bold")
    for account in shown:
        life = _life(account, now)
        table.add_row(
            account.email,
            "refreshing" if account.is_leased(now) else account.status.value,
            Text("━" * round(life / 3), style="green" if life > LIFETIME[0].total_seconds() / 4 else "yellow"),
            f"{life:.0f} s",
            str(_refreshes(statistics, account.email)),
        )
    hidden = f"and {len(accounts) - len(shown)} more mailboxes\n" if len(shown) < len(accounts) else ""
    totals = f"{readers.reads} reads, {readers.stale} stale, {statistics.refreshes} refreshes; {left:.0f} s to go"
    return Group(table, Text(hidden + totals))


def _refreshes(statistics: Any, email: str) -> int:
    seen = statistics.by_account.get(email)
    return seen.refreshes if seen else 0


def _life(account: Account, now: datetime) -> float:
    return max(0.0, (account.expires_at - now).total_seconds()) if account.expires_at else 0.0
