"""The composition root: settings in, services out. Called once per process, after any fork."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from redis import Redis

from worker import clock
from worker.cache import Cache, Locks, Outbox, Pauses, RateLimiter, connect
from worker.db.session import Database
from worker.identity import Identity
from worker.service.bridge import Bridge
from worker.service.credentials import Credentials
from worker.service.custody import Custody
from worker.service.entries import Entries
from worker.service.gate import Gate
from worker.service.ledger import Ledger
from worker.service.recovery import Recovery
from worker.service.refresh import Refresher
from worker.service.rotation import Rotation
from worker.service.settlement import Settlement
from worker.service.tokens import Tokens
from worker.settings import Settings
from worker.vault import Vault


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything a process works with. Close it when done."""

    database: Database
    redis: Redis
    cache: Cache
    identity: Identity
    refresher: Refresher
    tokens: Tokens
    credentials: Credentials
    rotation: Rotation
    ledger: Ledger

    def ping(self) -> None:
        """Raises Unavailable unless Postgres and Redis both answer."""
        self.database.ping()
        self.cache.ping()

    def close(self) -> None:
        self.refresher.close()
        self.identity.close()
        self.redis.close()
        self.database.close()


def bootstrap(settings: Settings, *, utcnow: Callable[[], datetime] = clock.utcnow) -> Services:
    """Wire the services. Connects to nothing yet. Raises ConfigurationError."""
    database = Database(settings.database_url.get_secret_value())
    redis = connect(settings.redis_url.get_secret_value())
    cache = Cache(redis, ttl=timedelta(seconds=settings.cache_ttl))
    recovery = Recovery(database=database, outbox=Outbox(redis), utcnow=utcnow)
    vault = Vault(settings.keys)
    identity = Identity(settings.registrations, ca_bundle=settings.ca_bundle, connections=settings.threads)
    policy = settings.policy
    entries = Entries(cache, vault)
    locks = Locks(redis)
    lease = timedelta(seconds=settings.lease)
    limiter = RateLimiter(redis, per_second=settings.rate)
    settlement = Settlement(
        database=database, vault=vault, entries=entries, recovery=recovery, policy=policy, utcnow=utcnow
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
        threads=settings.threads,
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
    return Services(
        database=database,
        redis=redis,
        cache=cache,
        identity=identity,
        refresher=refresher,
        tokens=Tokens(
            database=database,
            vault=vault,
            entries=entries,
            bridge=bridge,
            recovery=recovery,
            refresher=refresher,
            policy=policy,
            utcnow=utcnow,
        ),
        credentials=Credentials(
            database=database, vault=vault, identity=identity, entries=entries, policy=policy, utcnow=utcnow
        ),
        rotation=Rotation(database=database, vault=vault, recovery=recovery),
        ledger=Ledger(
            database=database,
            clients=identity.clients,
            retention=timedelta(days=settings.events_retention_days),
            utcnow=utcnow,
        ),
    )
