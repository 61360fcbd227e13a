"""The exporter as a process: it serves until a signal ends it."""

import signal
import threading
from collections.abc import Callable
from datetime import datetime

from worker import clock
from worker.db.session import Database
from worker.exporter.broker import BrokerState
from worker.exporter.collector import Collector
from worker.exporter.credentials import Credentials
from worker.exporter.fleet import Fleet
from worker.exporter.postgres import PostgresState
from worker.exporter.redis import RedisState
from worker.exporter.server import Server
from worker.settings import ExporterSettings


def serve(settings: ExporterSettings, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. Calls ``ready`` with the URL once it listens. Raises ConfigurationError."""
    database = Database(settings.database_url.get_secret_value())
    fleet = Fleet(database, utcnow=clock.utcnow)
    counting = threading.Thread(target=fleet.run, daemon=True)
    collector = make_collector(settings, database, fleet, utcnow=clock.utcnow)
    with Server(host, port, collector, is_healthy=counting.is_alive) as server:
        for number in (signal.SIGTERM, signal.SIGINT):
            # In a thread, because shutdown waits for the loop that the signal interrupts.
            signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
        counting.start()
        ready(server.url)
        server.serve_forever()
    fleet.stop()
    collector.close()


def make_collector(
    settings: ExporterSettings, database: Database, fleet: Fleet, *, utcnow: Callable[[], datetime]
) -> Collector:
    """The collector of all metrics. Opens no connection before it collects."""
    return Collector(
        [
            PostgresState(database, utcnow=utcnow),
            RedisState(settings.redis_url.get_secret_value(), prefix=settings.key_prefix, utcnow=utcnow),
            BrokerState(settings.broker, prefix=settings.key_prefix),
        ],
        fleet=fleet,
        credentials=Credentials(settings.credentials),
        utcnow=utcnow,
    )
