"""The composition root of commands that only show something. Each part is imported and built at first use.

``bootstrap`` imports all services with MSAL, libcurl and Celery, which takes twice the time of the longest of these
commands.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from worker import clock
from worker.domain.audit import Actor
from worker.settings import Settings

# ruff: noqa: PLC0415 - see above

if TYPE_CHECKING:
    from worker.cache import RedisClient
    from worker.db.session import Database
    from worker.domain.token import AccessToken
    from worker.service.accounts.audit import AuditLog
    from worker.service.accounts.events import Ledger
    from worker.service.accounts.explainer import AccountExplainer
    from worker.service.accounts.listing import AccountList
    from worker.service.accounts.status import FleetStatus

_REDIS = ("redis://", "rediss://", "unix://")


class Views:
    """The services of a command. Opens no connection before the first use. Not thread-safe. Close it at the end."""

    def __init__(self, settings: Settings, *, actor: Actor, utcnow: Callable[[], datetime] = clock.utcnow) -> None:
        self._settings = settings
        self._actor = actor
        self._utcnow = utcnow
        self._cleanup = ExitStack()
        self._clients = [registration.name for registration in settings.registrations]

    def close(self) -> None:
        self._cleanup.close()

    def cached_token(self, email: str, min_ttl: timedelta | None) -> "AccessToken | None":
        """The token in Redis, if it satisfies."""
        from worker.cache import Cache
        from worker.domain.account import account_id
        from worker.domain.token import TokenRequirement
        from worker.service.tokens.cache import TokenCache
        from worker.vault import Vault

        entries = Cache(self._redis, ttl=timedelta(seconds=self._settings.cache_ttl))
        entry = TokenCache(entries, Vault(self._settings.keys)).read(account_id(email))
        token, requirement = entry.token if entry else None, TokenRequirement(min_ttl=min_ttl)
        return token if self._settings.policy.satisfies(token, requirement, now=self._utcnow()) else None

    @property
    def rate(self) -> int:
        """Requests per second, of each app registration."""
        return self._settings.rate

    @cached_property
    def accounts(self) -> "AccountList":
        from worker.service.accounts.listing import AccountList

        return AccountList(self._database)

    @cached_property
    def events(self) -> "Ledger":
        from worker.service.accounts.events import Ledger

        return Ledger(
            database=self._database,
            clients=self._clients,
            event_days=self._settings.events_retention_days,
            success_days=self._settings.successes_retention_days,
            utcnow=self._utcnow,
        )

    @cached_property
    def audit(self) -> "AuditLog":
        from worker.service.accounts.audit import AuditLog

        return AuditLog(
            database=self._database,
            actor=self._actor,
            retention=timedelta(days=self._settings.audit_retention_days),
            utcnow=self._utcnow,
        )

    @cached_property
    def status(self) -> "FleetStatus":
        from worker.cache import HeartbeatStore, OutboxStore
        from worker.service.accounts.status import FleetStatus

        return FleetStatus(
            database=self._database,
            outbox=OutboxStore(self._redis),
            heartbeats=HeartbeatStore(self._redis),
            depths=self._depths,
            redis_url=self._settings.redis_url.get_secret_value(),
            clients=self._clients,
            key_ids=[key.id for key in self._settings.keys],
            sweep_interval=timedelta(seconds=self._settings.sweep_interval),
            utcnow=self._utcnow,
        )

    @cached_property
    def explainer(self) -> "AccountExplainer":
        from worker.cache import HeartbeatStore, OutboxStore, TenantThrottle
        from worker.service.accounts.explainer import AccountExplainer

        return AccountExplainer(
            database=self._database,
            throttle=TenantThrottle(self._redis, utcnow=self._utcnow),
            outbox=OutboxStore(self._redis),
            heartbeats=HeartbeatStore(self._redis),
            clients=self._clients,
            utcnow=self._utcnow,
        )

    @cached_property
    def _database(self) -> "Database":
        from worker.db.session import Database

        database = Database(self._settings.database_url.get_secret_value())
        self._cleanup.callback(database.close)
        return database

    @cached_property
    def _redis(self) -> "RedisClient":
        return self._connected(self._settings.redis_url.get_secret_value())

    def _connected(self, url: str) -> "RedisClient":
        from worker.cache import connect

        redis = connect(url, prefix=self._settings.key_prefix)
        self._cleanup.callback(redis.close)
        return redis

    def _depths(self) -> Mapping[str, int]:
        from worker.domain.fleet import QUEUES

        url, prefix = self._settings.broker, self._settings.key_prefix
        if url.startswith(_REDIS):
            from worker.cache import QueueLengths

            return QueueLengths(self._connected(url), prefix=prefix).read(QUEUES)
        from worker.broker import QueueDepths

        depths = QueueDepths(url, prefix=prefix)
        try:
            return depths.read(QUEUES)
        finally:
            depths.close()
