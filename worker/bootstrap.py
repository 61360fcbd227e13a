"""The composition root: settings in, services out. Called once per process, after any fork."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from redis import Redis

from worker import clock
from worker.cache import Cache, Locks, OutboxStore, RateLimiter, RequestDedup, TenantThrottle, connect
from worker.db.session import Database
from worker.domain.policy import RefreshPolicy
from worker.identity import Identity
from worker.observability import logging
from worker.service.accounts.events import Ledger
from worker.service.accounts.key_rotation import KeyRotation
from worker.service.accounts.manager import AccountManager
from worker.service.accounts.reader import AccountReader
from worker.service.accounts.watch import Attention
from worker.service.bridge import Bridge
from worker.service.custody import Custody
from worker.service.refresh.breakers import CircuitBreakers
from worker.service.refresh.outbox import Outbox
from worker.service.refresh.refresher import Refresher
from worker.service.refresh.results import ResultWriter
from worker.service.tokens.cache import TokenCache
from worker.service.tokens.delegated import DelegatedRefresh
from worker.service.tokens.local_cache import Memory
from worker.service.tokens.on_demand import DirectRefresh
from worker.service.tokens.reader import Tokens
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
    on_demand: DirectRefresh
    tokens: Tokens
    attention: Attention
    accounts: AccountManager
    key_rotation: KeyRotation
    outbox: Outbox
    events: Ledger

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
    credentials: AccountManager | None  # None for one that only reads
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
        credentials=services.accounts,
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
    entries = TokenCache(cache, vault, memory=memory)
    accounts = AccountReader(database=database, vault=vault, utcnow=utcnow)
    recovery = Outbox(database=database, outbox=OutboxStore(redis), accounts=accounts, entries=entries, utcnow=utcnow)
    locks = Locks(redis)
    lease = timedelta(seconds=settings.lease)
    limiter = RateLimiter(redis, per_second=settings.rate)
    settlement = ResultWriter(
        database=database,
        vault=vault,
        accounts=accounts,
        entries=entries,
        outbox=recovery,
        policy=policy,
        utcnow=utcnow,
    )
    refresher = Refresher(
        database=database,
        vault=vault,
        identity=identity,
        outbox=recovery,
        settlement=settlement,
        gate=CircuitBreakers(database=database, utcnow=utcnow),
        custody=Custody(locks=locks, recovery=recovery, lease=lease),
        limiter=limiter,
        pauses=TenantThrottle(redis, utcnow=utcnow),
        utcnow=utcnow,
        lease=lease,
        batch_size=settings.batch_size,
    )
    bridge = Bridge(
        vault=vault,
        identity=identity,
        entries=entries,
        outbox=recovery,
        locks=locks,
        limiter=limiter,
        policy=policy,
        utcnow=utcnow,
    )
    renewal = DirectRefresh(
        accounts=accounts,
        entries=entries,
        bridge=bridge,
        outbox=recovery,
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
        on_demand=renewal,
        tokens=Tokens(accounts=accounts, entries=entries, renewal=renewal, policy=policy, utcnow=utcnow),
        attention=Attention(database),
        accounts=AccountManager(
            database=database,
            vault=vault,
            identity=identity,
            accounts=accounts,
            entries=entries,
            policy=policy,
            utcnow=utcnow,
        ),
        key_rotation=KeyRotation(database=database, vault=vault, recovery=recovery),
        outbox=recovery,
        events=Ledger(
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
    entries = TokenCache(Cache(redis, ttl=timedelta(seconds=settings.cache_ttl)), vault, memory=Memory(utcnow=utcnow))
    accounts = AccountReader(database=database, vault=vault, utcnow=utcnow) if database else None
    sender = TaskSender(settings.broker)
    policy = RefreshPolicy()
    renewal = DelegatedRefresh(
        accounts=accounts,
        entries=entries,
        questions=RequestDedup(redis),
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
        accounts=None,
        close=close,
    )
