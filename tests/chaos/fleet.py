"""A fleet that lives through the whole suite: servers, workers, beats, readers, and Microsoft as a witness."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg

from tests.chaos.readers import Readers
from tests.chaos.witness import Witness
from tests.e2e.commands import Commands
from tests.e2e.installation import PATIENCE, Installation, emails, inherited
from worker.bootstrap import Services
from worker.client import TokenClient
from worker.clock import utcnow
from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, EmulatorServer
from worker.devkit.stack import Stack
from worker.devkit.stack.process import Process
from worker.domain.account import Account, Grant, account_id
from worker.domain.secret import Secret
from worker.domain.token import CacheEntry
from worker.service.tokens.cache import TokenCache
from worker.vault import Purpose, Vault, generate_key, parse_keys

MAILBOXES = 30
QUIET = 4  # of them: nobody happens to read these
LIFETIME = timedelta(seconds=20), timedelta(seconds=40)
THREADS = 8  # questions at a time and worker
LEASE = 60  # seconds; the shortest that is allowed
NEXT_SECRET = "the-next-secret"
SETTINGS = {
    "WORKER_SWEEP_INTERVAL": "0.5",
    "WORKER_LEASE": str(LEASE),
    "WORKER_MIN_LEAD": "0",
    "WORKER_BATCH_SIZE": "10",
    "WORKER_CONNECTIONS": str(THREADS),
    "WORKER_CLIENT_ID": DEFAULT_CLIENT_ID,
    "WORKER_CLIENT_SECRET": DEFAULT_CLIENT_SECRET,
    "WORKER_NEXT_CLIENT_SECRET": NEXT_SECRET,
}
_TICK = 0.003  # seconds
_LONGEST_WORK = 2.0  # seconds from claim to commit, when nothing is wrong
_WINDOW = timedelta(seconds=1)  # from answer to commit, likewise


class Fleet:
    """Two workers, a beat, and consumers that read all the while."""

    def __init__(
        self, stack: Stack, witness: Witness, installation: Installation, *, client: TokenClient, observer: Services
    ) -> None:
        self.stack = stack
        self.witness = witness
        self.installation = installation
        self.services = observer  # with connections of its own: readers may wait for all of theirs
        self.emails = emails(MAILBOXES)
        self.client = client
        self.quiet = self.emails[-QUIET:]
        self.readers = Readers(self.client, witness, self.emails[:-QUIET])
        self.workers: dict[str, Process] = {}
        self.beats: list[Process] = []
        self.strict = True
        self.strikes = 0
        self.caught = 0  # accounts whose answer died with its worker
        self._vault = Vault(parse_keys(installation.environment["WORKER_ENCRYPTION_KEYS"]))
        self._entries = TokenCache(observer.cache, self._vault)

    def start(self) -> None:
        self.sign_in(self.emails)
        for name in ("one", "two"):
            self.start_worker(name)
        self.start_beat()
        self.readers.start()

    def start_worker(self, name: str) -> None:
        self.workers[name] = self.installation.worker(name, "--without-mingle", concurrency=1)

    def start_beat(self) -> None:
        self.beats.append(self.installation.celery("beat"))

    def stop_beats(self) -> None:
        while self.beats:
            self.beats.pop().kill()

    def mend(self) -> None:
        """After a violation: everybody signs in anew, and what has ended is started."""
        self.witness.clear_faults()
        for name in [name for name, worker in self.workers.items() if not worker.alive()]:
            self.start_worker(name)
        if not all(beat.alive() for beat in self.beats):
            self.stop_beats()
            self.start_beat()
        self.services.redis.flushall()
        self.sign_in(self.emails)

    def sign_in(self, who: Collection[str]) -> None:
        """Their users sign in, and the application stores what that gave."""
        granted = [self.witness.enrol(email, strict=self.strict) for email in who]
        self.services.accounts.save(
            [Grant(email=grant.email, refresh_token=Secret(grant.refresh_token)) for grant in granted]
        )

    def make_due(self, who: Collection[str] | None = None) -> None:
        """Move the next cycle to now, for those who have nothing else to wait for."""
        self.installation.sql(
            "UPDATE mail_credentials SET refresh_due_at = now()"
            " WHERE email = ANY(%s) AND lease_id IS NULL AND failure_count = 0 AND refresh_due_at > now()",
            list(self.emails if who is None else who),
        )

    def cycle(self) -> None:
        """Every account is refreshed once more."""
        before = self.versions()
        self.make_due()
        until(
            lambda: all(version > before[email] for email, version in self.versions().items()),
            about="everybody's refresh",
            tick=0.1,
        )

    def versions(self) -> dict[str, int]:
        return dict(self.installation.sql("SELECT email, version FROM mail_credentials"))

    def stored(self) -> list[tuple[Account, str, CacheEntry | None]]:
        """Every account with its refresh token, and its entry in Redis."""
        return [
            (account, self._opened(account), self._entries.read(account.id))
            for account in self.services.accounts.list()
        ]

    def cached_token(self, entry: CacheEntry) -> str:
        assert entry.refresh_token is not None
        return self._vault.open(entry.refresh_token, entry.account_id, Purpose.REFRESH_TOKEN).reveal()

    def windows(self, *, since: datetime) -> list[float]:
        """Milliseconds from each answer to its commit, by Microsoft's notes and Postgres's."""
        committed = dict(
            self.installation.sql(
                "SELECT fingerprint_after, pg_xact_commit_timestamp(xmin) FROM refresh_events WHERE at > %s", since
            )
        )
        answered = {
            self._vault.fingerprint(Secret(given.token), account_id(given.email)): given.at
            for given in self.witness.given()
            if given.at > since
        }
        return [
            (committed[token] - at) / timedelta(milliseconds=1) for token, at in answered.items() if token in committed
        ]

    def processes(self) -> list[Process]:
        return [*self.workers.values(), *self.beats]

    def children(self, name: str) -> list[int]:
        pid = self.workers[name].pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def until_asked(self, more: int, *, seconds: float = 20.0) -> None:
        """Due at once, and so many questions have been asked."""
        wanted = self.witness.asked + more
        self.make_due()
        until(lambda: self.witness.asked >= wanted, about=f"{more} questions", seconds=seconds)

    def read_by_all(self) -> None:
        """Every consumer has read again, if only to be refused."""
        wanted = self.readers.reads() + 2 * MAILBOXES
        until(lambda: self.readers.reads() >= wanted, about="the consumers to read")

    @contextmanager
    def superior(self) -> Iterator[psycopg.Connection]:
        """A connection to Postgres that can write whatever the database's defaults are."""
        options = "-c default_transaction_read_only=off"
        with closing(psycopg.connect(_plain(self.stack.database_url), autocommit=True, options=options)) as connection:
            yield connection

    @contextmanager
    def burial(self) -> Iterator[None]:
        """Inside, workers are killed; then the leases they leave are ended, or everybody would wait for a minute."""
        killed_at = utcnow()
        yield
        orphaned = self.write_off(since=killed_at)
        self.installation.sql(
            "UPDATE mail_credentials SET lease_until = now(), refresh_due_at = now() WHERE lease_id = ANY(%s)",
            list(orphaned),
        )

    def write_off(self, *, since: datetime) -> Collection[UUID]:
        """What was answered and had not been stored when its worker was killed is nowhere; find out whose it was.

        Where Microsoft is strict, that costs a sign-in. Returns the leases that nobody works on any more.
        """
        until(self.witness.idle, about="Microsoft to decide what the dead have asked")
        left = self._leases()
        self.pass_time(_LONGEST_WORK)
        orphaned = dict(left & self._leases())
        lost = [
            account.email
            for account, token, _ in self.stored()
            if account.email in orphaned and token != self.witness.newest_refresh_token(account.email)
        ]
        for email in lost:
            self.witness.write_off(email, since=since - _WINDOW)
        if self.strict and lost:
            self.sign_in(lost)
            self.caught += len(lost)
        return orphaned.values()

    def _leases(self) -> frozenset[tuple[str, UUID]]:
        """Who is leased, and under which lease."""
        return frozenset(
            self.installation.sql("SELECT email, lease_id FROM mail_credentials WHERE lease_id IS NOT NULL")
        )

    def pass_time(self, seconds: float) -> None:
        """An outage is as long as it is; nothing in it is worth waiting for."""
        time.sleep(seconds)

    def _opened(self, account: Account) -> str:
        assert account.refresh_token is not None
        return self._vault.open(account.refresh_token, account.id, Purpose.REFRESH_TOKEN).reveal()


def until(condition: Callable[[], object], *, about: str, seconds: float = 60.0, tick: float = _TICK) -> None:
    """Like wait_for, for what may be over within milliseconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            msg = f"{about}: not within {seconds:.0f} s"
            raise AssertionError(msg)
        time.sleep(tick)


def _remember_commit_times(stack: Stack) -> None:
    """Postgres tells when each row was committed; a setting that it reads at its start."""
    with closing(psycopg.connect(_plain(stack.database_url), autocommit=True)) as connection:
        connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
    stack.postgres.stop()
    stack.postgres.start()


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


@contextmanager
def running_fleet(directory: Path) -> Iterator[Fleet]:
    """Everything started, everything stopped."""
    witness = Witness(lifetime=LIFETIME)
    with ExitStack() as undo:
        stack = undo.enter_context(Stack(durable=False))
        _remember_commit_times(stack)
        server = undo.enter_context(EmulatorServer(directory, witness))
        environment = {
            **SETTINGS,
            "WORKER_DATABASE_URL": stack.database_url,
            "WORKER_REDIS_URL": stack.redis_url,
            "WORKER_ENCRYPTION_KEYS": generate_key("k1"),
            "WORKER_AUTHORITY": server.authority,
            "WORKER_CA_BUNDLE": str(server.ca_bundle),
        }
        commands = undo.enter_context(closing(Commands(inherited(), patience=PATIENCE)))
        installation = Installation(directory, environment, server, commands)
        undo.callback(installation.close)
        assert installation.cli("migrate").returncode == 0
        client = undo.enter_context(TokenClient(installation.settings))
        observer = undo.enter_context(installation.services())
        fleet = Fleet(stack, witness, installation, client=client, observer=observer)
        undo.callback(fleet.readers.stop)
        fleet.start()
        yield fleet
