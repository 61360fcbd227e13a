"""The composition root: it builds the services from the settings, once per process, after any fork."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from worker import clock
from worker.cache import (
    Cache,
    FleetMarker,
    HeartbeatStore,
    OutboxStore,
    RateLimiter,
    RedisClient,
    RequestDedup,
    TenantThrottle,
    connect,
    inspection,
)
from worker.db.session import Database
from worker.domain.audit import Actor
from worker.domain.errors import ConfigurationError, Unavailable
from worker.domain.mail_hosts import parse_mail_hosts
from worker.domain.redis_url import CLUSTER_REFUSED
from worker.identity import Identity
from worker.identity.endpoints import parse_endpoint_hosts
from worker.observability import logging
from worker.observability.actor import current_actor
from worker.service.accounts.audit import AuditLog
from worker.service.accounts.events import Ledger
from worker.service.accounts.grant_sealer import GrantSealer
from worker.service.accounts.key_rotation import KeyRotation
from worker.service.accounts.manager import AccountManager
from worker.service.accounts.pauses import Pauses
from worker.service.accounts.reader import AccountReader
from worker.service.accounts.renaming import AccountRenaming
from worker.service.accounts.states import AccountStates
from worker.service.refresh.breaker_control import BreakerControl
from worker.service.refresh.breakers import CircuitBreakers
from worker.service.refresh.fleet import Fleet
from worker.service.refresh.leases import Leases
from worker.service.refresh.outbox import Outbox
from worker.service.refresh.refresher import Refresher
from worker.service.refresh.results import ResultWriter
from worker.service.tokens.cache import LocalCache, TokenCache
from worker.service.tokens.delegated import DelegatedRefresh
from worker.service.tokens.on_demand import DirectRefresh, StoredAccounts
from worker.service.tokens.reader import TokenReader
from worker.settings import ReaderSettings, Settings
from worker.vault import Vault


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The services of a process. Close them at the end."""

    database: Database
    redis: RedisClient
    cache: Cache
    identity: Identity
    refresher: Refresher
    on_demand: DirectRefresh
    tokens: TokenReader
    accounts: AccountManager
    states: AccountStates
    audit: AuditLog
    pauses: Pauses
    renaming: AccountRenaming
    breakers: BreakerControl
    key_rotation: KeyRotation
    fleet: Fleet
    outbox: Outbox
    events: Ledger
    heartbeats: HeartbeatStore

    def close(self) -> None:
        self.identity.close()
        self.redis.close()
        self.database.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """The services of a consumer's process, as far as its keys and URLs allow."""

    tokens: TokenReader
    database: Database | None  # None without WORKER_DATABASE_URL
    accounts: AccountManager | None  # None with access keys, which open no refresh token
    close: Callable[[], None]


def bootstrap_consumer(
    settings: Settings | ReaderSettings, *, utcnow: Callable[[], datetime] = clock.utcnow
) -> Consumer:
    """Build the services of a consumer. Opens no connection. Raises ConfigurationError."""
    logging.configure_consumer()
    if isinstance(settings, ReaderSettings):
        return _bootstrap_reader(settings, utcnow)
    services = bootstrap(settings, utcnow=utcnow, local=LocalCache(utcnow=utcnow))
    return Consumer(
        tokens=services.tokens, database=services.database, accounts=services.accounts, close=services.close
    )


def check_stores(settings: Settings) -> None:
    """Raises ConfigurationError if Redis is a cluster, or holds the keys of another fleet. Does nothing while they are
    down. Opens connections and closes them.
    """
    database = Database(settings.database_url.get_secret_value())
    with connect(settings.redis_url.get_secret_value(), prefix=settings.key_prefix) as redis:
        try:
            _check_server(redis)
            Fleet(database=database, marker=FleetMarker(redis)).claim()
        finally:
            database.close()


def _check_server(redis: RedisClient) -> None:
    with suppress(Unavailable):
        server = inspection.server(redis)
        if server and server.is_cluster:
            raise ConfigurationError(f"WORKER_REDIS_URL {CLUSTER_REFUSED}")


def bootstrap(
    settings: Settings,
    *,
    actor: Actor | None = None,
    utcnow: Callable[[], datetime] = clock.utcnow,
    local: LocalCache | None = None,
) -> Services:
    """Build the services. ``actor`` acts by them: by default who runs the process. Opens no connection.

    Raises ConfigurationError.
    """
    database = Database(settings.database_url.get_secret_value())
    redis = connect(settings.redis_url.get_secret_value(), prefix=settings.key_prefix)
    vault, policy = Vault(settings.keys), settings.policy
    identity = Identity(
        settings.registrations,
        ca_bundle=settings.ca_bundle,
        connections=settings.connections,
        endpoint_hosts=parse_endpoint_hosts(settings.endpoint_hosts or ""),
        proxies=settings.proxies,
    )
    entries = Cache(redis, ttl=timedelta(seconds=settings.cache_ttl))
    reader = AccountReader(database=database, vault=vault, utcnow=utcnow)
    cache = TokenCache(entries, vault, accounts=reader, local=local)
    fleet = Fleet(database=database, marker=FleetMarker(redis))
    outbox = Outbox(
        database=database,
        store=OutboxStore(redis),
        fleet=fleet,
        vault=vault,
        accounts=reader,
        cache=cache,
        utcnow=utcnow,
    )
    refresher = Refresher(
        breakers=CircuitBreakers(database=database, utcnow=utcnow),
        limiter=RateLimiter(redis, per_second=settings.rate),
        leases=Leases(
            database=database, outbox=outbox, vault=vault, utcnow=utcnow, duration=timedelta(seconds=settings.lease)
        ),
        throttle=TenantThrottle(redis, utcnow=utcnow),
        identity=identity,
        writer=ResultWriter(
            database=database,
            vault=vault,
            accounts=reader,
            cache=cache,
            outbox=outbox,
            policy=policy,
            utcnow=utcnow,
        ),
        utcnow=utcnow,
        batch_size=settings.batch_size,
    )
    stored = StoredAccounts(accounts=reader, cache=cache, policy=policy, utcnow=utcnow)
    on_demand = DirectRefresh(
        accounts=reader, stored=stored, cache=cache, refresher=refresher, policy=policy, utcnow=utcnow
    )
    audit = AuditLog(
        database=database,
        actor=actor or current_actor(),
        retention=timedelta(days=settings.audit_retention_days),
        utcnow=utcnow,
    )
    states = AccountStates(database=database, accounts=reader, outbox=outbox, cache=cache, audit=audit, utcnow=utcnow)
    return Services(
        database=database,
        redis=redis,
        cache=entries,
        identity=identity,
        refresher=refresher,
        on_demand=on_demand,
        tokens=TokenReader(cache=cache, stored=stored, on_demand=on_demand, policy=policy, utcnow=utcnow),
        accounts=AccountManager(
            database=database,
            sealer=GrantSealer(
                vault=vault,
                policy=policy,
                servers={registration.name: registration.mail for registration in settings.registrations},
                utcnow=utcnow,
            ),
            identity=identity,
            states=states,
            cache=cache,
            audit=audit,
            mail_hosts=parse_mail_hosts(settings.mail_hosts or ""),
            utcnow=utcnow,
        ),
        states=states,
        audit=audit,
        pauses=Pauses(database=database, audit=audit, utcnow=utcnow),
        renaming=AccountRenaming(
            database=database,
            vault=vault,
            accounts=reader,
            outbox=outbox,
            cache=cache,
            audit=audit,
            utcnow=utcnow,
        ),
        breakers=BreakerControl(database=database, audit=audit, clients=identity.clients, utcnow=utcnow),
        key_rotation=KeyRotation(database=database, vault=vault, outbox=outbox, audit=audit),
        fleet=fleet,
        outbox=outbox,
        events=Ledger(
            database=database,
            clients=identity.clients,
            event_days=settings.events_retention_days,
            success_days=settings.successes_retention_days,
            utcnow=utcnow,
        ),
        heartbeats=HeartbeatStore(redis),
    )


def _bootstrap_reader(settings: ReaderSettings, utcnow: Callable[[], datetime]) -> Consumer:
    """Build the services of a consumer that only reads. It has no app registration and no refresh tokens."""
    from worker.broker import TaskSender  # noqa: PLC0415 - imports Celery, which other consumers do not need

    database = Database(settings.database_url.get_secret_value()) if settings.database_url else None
    redis = connect(settings.redis_url.get_secret_value(), prefix=settings.key_prefix)
    vault, policy = Vault(settings.keys), settings.policy
    entries = Cache(redis, ttl=timedelta(seconds=settings.cache_ttl))
    cache = TokenCache(entries, vault, local=LocalCache(utcnow=utcnow))
    stored = None
    if database:
        reader = AccountReader(database=database, vault=vault, utcnow=utcnow)
        stored = StoredAccounts(accounts=reader, cache=cache, policy=policy, utcnow=utcnow)
    sender = TaskSender(settings.broker, prefix=settings.key_prefix)
    on_demand = DelegatedRefresh(cache=cache, requests=RequestDedup(redis), sender=sender, policy=policy, utcnow=utcnow)

    def close() -> None:
        sender.close()
        redis.close()
        if database:
            database.close()

    return Consumer(
        tokens=TokenReader(cache=cache, stored=stored, on_demand=on_demand, policy=policy, utcnow=utcnow),
        database=database,
        accounts=None,
        close=close,
    )
