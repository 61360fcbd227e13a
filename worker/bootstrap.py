"""The composition root: settings in, services out. Called once per process, after any fork."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from redis import Redis

from worker import clock
from worker.cache import Cache, Locks, Outbox, Pauses, Questions, RateLimiter, connect
from worker.db.session import Database
from worker.domain.policy import RefreshPolicy
from worker.identity import Identity
from worker.observability import logging
from worker.service.accounts import Accounts
from worker.service.asking import AskingRenewal
from worker.service.attention import Attention
from worker.service.bridge import Bridge
from worker.service.credentials import Credentials
from worker.service.custody import Custody
from worker.service.entries import Entries
from worker.service.gate import Gate
from worker.service.ledger import Ledger
from worker.service.memory import Memory
from worker.service.recovery import Recovery
from worker.service.refresh import Refresher
from worker.service.renewal import OwnRenewal
from worker.service.rotation import Rotation
from worker.service.settlement import Settlement
from worker.service.tokens import Tokens
from worker.settings import ReaderSettings, Settings
from worker.vault import Vault


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything a process works with. Close it when done."""

    database: Database
    redis: Redis
    cache: Cache
    identity: Identity
    refresher: Refresher
    renewal: OwnRenewal
    tokens: Tokens
    attention: Attention
    credentials: Credentials
    rotation: Rotation
    recovery: Recovery
    ledger: Ledger

    def ping(self) -> None:
        """Raises Unavailable unless Postgres and Redis both answer."""
        self.database.ping()
        self.cache.ping()

    def close(self) -> None:
        self.identity.close()
        self.redis.close()
        self.database.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """What a consumer's process works with: as much as it was given the keys for."""

    tokens: Tokens
    attention: Attention | None  # None without Postgres
    credentials: Credentials | None  # None for one that only reads
    close: Callable[[], None]


def bootstrap_consumer(
    settings: Settings | ReaderSettings, *, utcnow: Callable[[], datetime] = clock.utcnow
) -> Consumer:
    """Wire what a consumer works with. Connects to nothing yet. Raises ConfigurationError."""
    logging.configure_consumer()
    if isinstance(settings, ReaderSettings):
        return _bootstrap_reader(settings, utcnow)
    services = bootstrap(settings, utcnow=utcnow, memory=Memory(utcnow=utcnow))
    return Consumer(
        tokens=services.tokens,
        attention=services.attention,
        credentials=services.credentials,
        close=services.close,
    )


def bootstrap(
    settings: Settings, *, utcnow: Callable[[], datetime] = clock.utcnow, memory: Memory | None = None
) -> Services:
    """Wire the services. Connects to nothing yet. Raises ConfigurationError."""
    database = Database(settings.database_url.get_secret_value())
    redis = connect(settings.redis_url.get_secret_value())
    cache = Cache(redis, ttl=timedelta(seconds=settings.cache_ttl))
    vault = Vault(settings.keys)
    identity = Identity(settings.registrations, ca_bundle=settings.ca_bundle, connections=settings.threads)
    policy = settings.policy
    entries = Entries(cache, vault, memory=memory)
    accounts = Accounts(database=database, vault=vault, utcnow=utcnow)
    recovery = Recovery(database=database, outbox=Outbox(redis), accounts=accounts, entries=entries, utcnow=utcnow)
    locks = Locks(redis)
    lease = timedelta(seconds=settings.lease)
    limiter = RateLimiter(redis, per_second=settings.rate)
    settlement = Settlement(
        database=database,
        vault=vault,
        accounts=accounts,
        entries=entries,
        recovery=recovery,
        policy=policy,
        utcnow=utcnow,
    )
    refresher = Refresher(
        database=database,
        vault=vault,
        identity=identity,
        recovery=recovery,
        settlement=settlement,
        gate=Gate(database=database, utcnow=utcnow),
        custody=Custody(locks=locks, recovery=recovery, lease=lease),
        limiter=limiter,
        pauses=Pauses(redis, utcnow=utcnow),
        utcnow=utcnow,
        lease=lease,
        batch_size=settings.batch_size,
    )
    bridge = Bridge(
        vault=vault,
        identity=identity,
        entries=entries,
        recovery=recovery,
        locks=locks,
        limiter=limiter,
        policy=policy,
        utcnow=utcnow,
    )
    renewal = OwnRenewal(
        accounts=accounts,
        entries=entries,
        bridge=bridge,
        recovery=recovery,
        refresher=refresher,
        policy=policy,
        utcnow=utcnow,
    )
    return Services(
        database=database,
        redis=redis,
        cache=cache,
        identity=identity,
        refresher=refresher,
        renewal=renewal,
        tokens=Tokens(accounts=accounts, entries=entries, renewal=renewal, policy=policy, utcnow=utcnow),
        attention=Attention(database),
        credentials=Credentials(
            database=database,
            vault=vault,
            identity=identity,
            accounts=accounts,
            entries=entries,
            policy=policy,
            utcnow=utcnow,
        ),
        rotation=Rotation(database=database, vault=vault, recovery=recovery),
        recovery=recovery,
        ledger=Ledger(
            database=database,
            clients=identity.clients,
            retention=timedelta(days=settings.events_retention_days),
            utcnow=utcnow,
        ),
    )


def _bootstrap_reader(settings: ReaderSettings, utcnow: Callable[[], datetime]) -> Consumer:
    """No app registration, no MSAL, no refresh token: who needs a better token asks the workers."""
    from worker.broker import TaskSender  # noqa: PLC0415 - with Celery, for which nobody else should wait

    database = Database(settings.database_url.get_secret_value()) if settings.database_url else None
    redis = connect(settings.redis_url.get_secret_value())
    vault = Vault(settings.keys)
    entries = Entries(Cache(redis, ttl=timedelta(seconds=settings.cache_ttl)), vault, memory=Memory(utcnow=utcnow))
    accounts = Accounts(database=database, vault=vault, utcnow=utcnow) if database else None
    sender = TaskSender(settings.broker)
    policy = RefreshPolicy()
    renewal = AskingRenewal(
        accounts=accounts,
        entries=entries,
        questions=Questions(redis),
        sender=sender,
        policy=policy,
        utcnow=utcnow,
    )

    def close() -> None:
        sender.close()
        redis.close()
        if database:
            database.close()

    return Consumer(
        tokens=Tokens(accounts=accounts, entries=entries, renewal=renewal, policy=policy, utcnow=utcnow),
        attention=Attention(database) if database else None,
        credentials=None,
        close=close,
    )
