"""Families of metrics, and what a store contributes to a scrape."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

PREFIX = "token_worker_"


@dataclass(frozen=True, slots=True)
class Reading:
    """The metrics of one store, and how far the clocks that it knows are ahead of this machine's."""

    families: Sequence[Metric]
    skews: Sequence[timedelta] = ()


def gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    """A family with one sample and no label."""
    return GaugeMetricFamily(PREFIX + name, meaning, value=value)


def gauges(
    name: str, meaning: str, labels: Sequence[str], samples: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    """A family with one sample for each combination of labels. Samples of equal labels are added up."""
    sums: dict[tuple[str, ...], float] = {}
    for values, value in samples:
        sums[values] = sums.get(values, 0) + value
    family = GaugeMetricFamily(PREFIX + name, meaning, labels=labels)
    for values, total in sums.items():
        family.add_metric(values, total)
    return family


def seconds(instant: datetime) -> float:
    """Since the epoch, as Prometheus counts time."""
    return instant.timestamp()
