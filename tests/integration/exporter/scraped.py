"""One scrape of the exporter, as Prometheus would read it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from worker.db.session import Database
from worker.exporter.fleet import Fleet
from worker.exporter.process import make_collector
from worker.exporter.server import Server
from worker.settings import ExporterSettings


@dataclass(frozen=True, slots=True)
class Scraped:
    """The samples of a scrape. Names are given without the prefix."""

    samples: dict[str, dict[frozenset[tuple[str, str]], float]]

    @classmethod
    def of(cls, page: str) -> Self:
        samples: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                name = sample.name.removeprefix("token_worker_")
                samples.setdefault(name, {})[frozenset(sample.labels.items())] = sample.value
        return cls(samples)

    def get(self, name: str, **labels: str) -> float | None:
        """The value of the sample with exactly these labels; None if it is absent."""
        return self.samples.get(name, {}).get(frozenset(labels.items()))

    def values(self, label: str, name: str) -> set[str]:
        """All values of a label."""
        return {dict(labels)[label] for labels in self.samples.get(name, {})}


class Exporter:
    """An exporter in this process, whose count of all accounts the test triggers. Close it at the end."""

    def __init__(self, settings: ExporterSettings, utcnow: Callable[[], datetime]) -> None:
        database = Database(settings.database_url.get_secret_value())
        self.fleet = Fleet(database, utcnow=utcnow)
        self._collector = make_collector(settings, database, self.fleet, utcnow=utcnow)
        self._registry = CollectorRegistry()
        self._registry.register(self._collector)

    def scrape(self) -> Scraped:
        return Scraped.of(self.page())

    def page(self) -> str:
        return generate_latest(self._registry).decode()

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve over HTTP. The block gets the URL."""
        with Server("127.0.0.1", 0, self._collector, is_healthy=lambda: True) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield server.url
            finally:
                server.shutdown()
                thread.join()

    def close(self) -> None:
        self._collector.close()
