"""Builds the doctor from the settings. Apart from the other services, because only one command needs it."""

from datetime import timedelta

from worker import clock
from worker.bootstrap import Services
from worker.identity.endpoints import parse_endpoint_hosts
from worker.service.doctor.clocks import ClockArea
from worker.service.doctor.doctor import Area, Doctor
from worker.service.doctor.fleet import FleetArea
from worker.service.doctor.microsoft import RegistrationArea
from worker.service.doctor.postgres import PostgresArea
from worker.service.doctor.redis import RedisArea
from worker.settings import Settings


def doctor(settings: Settings, services: Services) -> Doctor:
    """The examination of everything that the settings name."""
    redis_url = settings.redis_url.get_secret_value()
    return Doctor(
        [
            PostgresArea(
                database=services.database,
                ledger=services.events,
                key_rotation=services.key_rotation,
                utcnow=clock.utcnow,
            ),
            *_stores(redis_url, settings.broker, settings.key_prefix),
            *_registrations(settings, services),
            ClockArea(
                database=services.database,
                redis_url=redis_url,
                identity=services.identity,
                heartbeats=services.heartbeats,
                utcnow=clock.utcnow,
            ),
            FleetArea(
                fleet=services.fleet,
                heartbeats=services.heartbeats,
                key_ids=[key.id for key in settings.keys],
                sweep_interval=timedelta(seconds=settings.sweep_interval),
            ),
        ]
    )


def _stores(cache: str, broker: str, prefix: str) -> list[Area]:
    """One server, or two."""
    if cache == broker:
        return [RedisArea("WORKER_REDIS_URL", cache, prefix=prefix, is_cache=True, is_broker=True)]
    return [
        RedisArea("WORKER_REDIS_URL", cache, prefix=prefix, is_cache=True, is_broker=False),
        RedisArea("WORKER_BROKER_URL", broker, prefix=prefix, is_cache=False, is_broker=True),
    ]


def _registrations(settings: Settings, services: Services) -> list[Area]:
    return [
        RegistrationArea(
            registration,
            ca_bundle=settings.ca_bundle,
            endpoint_hosts=parse_endpoint_hosts(settings.endpoint_hosts or ""),
            proxies=settings.proxies,
            ledger=services.events,
            utcnow=clock.utcnow,
        )
        for registration in settings.registrations
    ]
