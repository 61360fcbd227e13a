"""The fleet of the whole suite: servers, workers, beats, readers, and an emulator that records every token."""

import time
from base64 import b64decode
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg

from tests.chaos.names import StoreNames, store_names
from tests.chaos.readers import Readers
from tests.chaos.recording_emulator import RecordingEmulator
from tests.e2e.commands import Commands
from tests.e2e.deployment import Deployment, inherited
from tests.factories import emails
from tests.waiting import HANG_LIMIT
from worker.bootstrap import Services
from worker.client import TokenClient
from worker.clock import utcnow
from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, EmulatorServer
from worker.devkit.stack import Stack
from worker.devkit.stack.process import Process
from worker.domain.account import Account, Grant, account_id
from worker.domain.binding import binding_of
from worker.domain.cache_entry import CacheEntry
from worker.domain.token import Sealed, Secret
from worker.service.tokens.cache import TokenCache
from worker.vault import Purpose, Vault, generate_key, parse_keys

MAILBOXES = 30
UNREAD = 4  # of the mailboxes, which no consumer reads
LIFETIME = timedelta(seconds=20), timedelta(seconds=40)
CONNECTIONS = 8  # to Microsoft, per worker
LEASE = 60  # seconds; the settings allow no less
NEXT_SECRET = "the-next-secret"
SETTINGS = {
    "WORKER_SWEEP_INTERVAL": "0.5",
    "WORKER_LEASE": str(LEASE),
    "WORKER_MIN_LEAD": "0",
    "WORKER_BATCH_SIZE": "10",
    "WORKER_THREADS": str(CONNECTIONS),
    "WORKER_CLIENT_ID": DEFAULT_CLIENT_ID,
    "WORKER_CLIENT_SECRET": DEFAULT_CLIENT_SECRET,
    "WORKER_NEXT_CLIENT_SECRET": NEXT_SECRET,
}
_TICK = 0.003  # seconds
_REFRESH_DURATION = 2.0  # seconds from lease to commit at most, without faults
_COMMIT_DELAY = timedelta(seconds=1)  # from response to commit at most, without faults


class Fleet:
    """Two workers, a beat, and consumers that read all the time."""

    def __init__(
        self,
        stack: Stack,
        emulator: RecordingEmulator,
        deployment: Deployment,
        *,
        names: StoreNames,
        client: TokenClient,
        observer: Services,
    ) -> None:
        self.stack = stack
        self.names = names
        self.emulator = emulator
        self.deployment = deployment
        self.services = observer  # has its own connections, because the readers may block all of theirs
        self.emails = emails(MAILBOXES)
        self.client = client
        self.unread = self.emails[-UNREAD:]
        self.readers = Readers(self.client, emulator, self.emails[:-UNREAD])
        self.workers: dict[str, Process] = {}
        self.beats: list[Process] = []
        self.strict = True
        self.injections = 0
        self.lost_responses = 0  # accounts whose response was lost with a killed worker
        self._vault = Vault(parse_keys(deployment.environment["WORKER_ENCRYPTION_KEYS"]))
        self._entries = TokenCache(observer.cache, self._vault)

    def start(self) -> None:
        self.sign_in(self.emails)
        for name in ("one", "two"):
            self.start_worker(name)
        self.start_beat()
        self.readers.start()

    def start_worker(self, name: str) -> None:
        self.workers[name] = self.deployment.worker(name, "--without-mingle", concurrency=1)

    def start_beat(self) -> None:
        self.beats.append(self.deployment.celery("beat"))

    def stop_beats(self) -> None:
        while self.beats:
            self.beats.pop().kill()

    def repair(self) -> None:
        """After a violation: start the processes that have ended, and sign all users in again."""
        self.emulator.clear_faults()
        for name in [name for name, worker in self.workers.items() if not worker.alive()]:
            self.start_worker(name)
        if not all(beat.alive() for beat in self.beats):
            self.stop_beats()
            self.start_beat()
        self.services.redis.flushall()
        self.sign_in(self.emails)

    def sign_in(self, addresses: Collection[str]) -> None:
        """The users sign in, and the application stores their grants."""
        granted = [self.emulator.enrol(email, strict=self.strict) for email in addresses]
        self.services.accounts.save(
            [Grant(email=grant.email, refresh_token=Secret(grant.refresh_token)) for grant in granted]
        )

    def make_due(self, addresses: Collection[str] | None = None) -> None:
        """Make accounts due that neither fail nor are leased."""
        self.deployment.sql(
            "UPDATE mail_credentials SET refresh_due_at = now()"
            " WHERE email = ANY(%s) AND lease_id IS NULL AND failure_count = 0 AND refresh_due_at > now()",
            list(self.emails if addresses is None else addresses),
        )

    def cycle(self) -> None:
        """Every account is refreshed once more."""
        before = self.versions()
        self.make_due()
        until(
            lambda: all(version > before[email] for email, version in self.versions().items()),
            about="the refresh of every account",
            tick=0.1,
        )

    def versions(self) -> dict[str, int]:
        return dict(self.deployment.sql("SELECT email, version FROM mail_credentials"))

    def stored(self) -> list[tuple[Account, str, CacheEntry | None]]:
        """Every account with its refresh token, and its entry in Redis."""
        return [
            (account, self._opened(account), self._entries.read(account.id))
            for account in self.services.accounts.list()
        ]

    def cached_token(self, entry: CacheEntry) -> str:
        assert entry.refresh_token is not None
        return self._vault.open(
            Sealed(b64decode(entry.refresh_token)), entry.account_id, Purpose.REFRESH_TOKEN, binding_of(entry)
        ).reveal()

    def windows(self, *, since: datetime) -> list[float]:
        """Milliseconds from each response to its commit, by the records of the emulator and of Postgres.

        The response that a commit belongs to is the last one before it.
        """
        commits = self.deployment.sql(
            "SELECT refresh >> 16, pg_xact_commit_timestamp(s.xmin)"
            " FROM refresh_successes AS s, unnest(refreshes) AS refresh WHERE at > %s",
            since,
        )
        issued = defaultdict[int, list[datetime]](list)
        for given in self.emulator.issued():
            if given.at > since:
                issued[int.from_bytes(account_id(given.email).bytes[:6], signed=True)].append(given.at)
        return [
            (committed - max(before)) / timedelta(milliseconds=1)
            for account, committed in commits
            if (before := [at for at in issued[account] if at < committed])
        ]

    def processes(self) -> list[Process]:
        return [*self.workers.values(), *self.beats]

    def children(self, name: str) -> list[int]:
        pid = self.workers[name].pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def until_requested(self, more: int, *, seconds: float = 20.0) -> None:
        """Make all accounts due, and wait for so many token requests."""
        wanted = self.emulator.requests + more
        self.make_due()
        until(lambda: self.emulator.requests >= wanted, about=f"{more} requests", seconds=seconds)

    def read_by_all(self) -> None:
        """Wait until every consumer has read again, with success or not."""
        wanted = self.readers.reads() + 2 * MAILBOXES
        until(lambda: self.readers.reads() >= wanted, about="the consumers to read")

    @contextmanager
    def admin_connection(self) -> Iterator[psycopg.Connection]:
        """A connection to Postgres that can write while the database is read-only by default."""
        options = "-c default_transaction_read_only=off"
        with closing(psycopg.connect(_plain(self.stack.database_url), autocommit=True, options=options)) as connection:
            yield connection

    @contextmanager
    def killing_workers(self) -> Iterator[None]:
        """The block kills workers. Afterwards their leases are ended, which would otherwise last for a minute."""
        killed_at = utcnow()
        yield
        orphaned = self.record_lost(since=killed_at)
        self.deployment.sql(
            "UPDATE mail_credentials SET lease_until = now(), refresh_due_at = now() WHERE lease_id = ANY(%s)",
            list(orphaned),
        )

    def record_lost(self, *, since: datetime) -> Collection[UUID]:
        """Find the accounts whose response was lost with a killed worker. Returns the leases of killed workers.

        If the emulator is strict, these accounts sign in again.
        """
        until(self.emulator.idle, about="the responses to the killed workers")
        left = self._leases()
        self.pass_time(_REFRESH_DURATION)
        orphaned = dict(left & self._leases())
        lost = [
            account.email
            for account, token, _ in self.stored()
            if account.email in orphaned and token != self.emulator.newest_refresh_token(account.email)
        ]
        for email in lost:
            self.emulator.record_lost(email, since=since - _COMMIT_DELAY)
        if self.strict and lost:
            self.sign_in(lost)
            self.lost_responses += len(lost)
        return orphaned.values()

    def _leases(self) -> frozenset[tuple[str, UUID]]:
        """The addresses of the leased accounts, with their leases."""
        return frozenset(self.deployment.sql("SELECT email, lease_id FROM mail_credentials WHERE lease_id IS NOT NULL"))

    def pass_time(self, seconds: float) -> None:
        """Sleep, because an outage has a length and no event to wait for."""
        time.sleep(seconds)

    def _opened(self, account: Account) -> str:
        assert account.refresh_token is not None
        return self._vault.open(account.refresh_token, account.id, Purpose.REFRESH_TOKEN, binding_of(account)).reveal()


def until(condition: Callable[[], object], *, about: str, seconds: float = 60.0, tick: float = _TICK) -> None:
    """Like wait_for, for a condition that may hold for milliseconds only."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            msg = f"{about}: not within {seconds:.0f} s"
            raise AssertionError(msg)
        time.sleep(tick)


def _track_commit_times(stack: Stack) -> None:
    """Let Postgres record the time of each commit. It reads this setting at its start."""
    with closing(psycopg.connect(_plain(stack.database_url), autocommit=True)) as connection:
        connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
    stack.postgres.stop()
    stack.postgres.start()


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


@contextmanager
def running_fleet(directory: Path) -> Iterator[Fleet]:
    """Start all parts of a fleet, and stop them at the end."""
    emulator = RecordingEmulator(lifetime=LIFETIME)
    with ExitStack() as undo:
        stack = undo.enter_context(Stack(durable=False))
        _track_commit_times(stack)
        names = undo.enter_context(store_names(stack, stack.directory / "names"))
        server = undo.enter_context(EmulatorServer(directory, emulator))
        environment = {
            **SETTINGS,
            "WORKER_DATABASE_URL": names.postgres.url,
            "WORKER_REDIS_URL": names.redis.url,
            "WORKER_ENCRYPTION_KEYS": generate_key("k1"),
            "WORKER_AUTHORITY": server.authority,
            "WORKER_CA_BUNDLE": str(server.ca_bundle),
        }
        commands = undo.enter_context(closing(Commands(inherited(), patience=HANG_LIMIT)))
        deployment = Deployment(directory, environment, server, commands)
        undo.callback(deployment.close)
        assert deployment.cli("migrate").returncode == 0
        client = undo.enter_context(TokenClient(deployment.settings))
        observer = undo.enter_context(deployment.services())
        fleet = Fleet(stack, emulator, deployment, names=names, client=client, observer=observer)
        undo.callback(fleet.readers.stop)
        fleet.start()
        yield fleet
