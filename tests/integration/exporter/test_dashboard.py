"""Every expression of the dashboard has a value, in a real Prometheus that scrapes the real exporter."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.prometheus import Prometheus
from tests.constants import ANN, BOB, CAT
from tests.factories import TurnedClock
from tests.integration.exporter.heartbeats import beat
from tests.integration.exporter.scraped import Exporter
from tests.integration.installation import Installation
from tests.promtool import ROOT, needs_prometheus
from tests.waiting import wait_for
from worker import clock as real_clock
from worker.cache import HeartbeatStore

_DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
_DOCUMENT = ROOT / "docs" / "metrics.md"
_VARIABLES = {"$job": "token-worker.*", "$client": ".*", "$__rate_interval": "1m"}


def expressions() -> list[str]:
    """Those of all panels and annotations, with values for Grafana's variables."""
    dashboard = json.loads(_DASHBOARD.read_text())
    given = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    for name, value in _VARIABLES.items():
        given = [expression.replace(name, value) for expression in given]
    return given


@pytest.fixture(name="clock")
def _clock() -> TurnedClock:
    """The time of now, because Prometheus reads the clock itself."""
    return TurnedClock(real_clock.utcnow())


def live_through_a_little(installation: Installation) -> None:
    """Accounts are refreshed, one needs its user, and there are processes."""
    installation.sign_in(ANN, BOB, CAT, due=True)
    installation.emulator.revoke(BOB)
    installation.refresh_due()
    beat(installation.services.redis)
    HeartbeatStore(installation.services.redis).note_sweep()


@needs_prometheus
def test_each_expression_has_a_value(
    installation: Installation, new_exporter: Callable[..., Exporter], tmp_path: Path
) -> None:
    exporter = new_exporter(client_secret_expires="2027-05-31")
    exporter.scrape()
    live_through_a_little(installation)
    left = expressions()
    with exporter.serving() as url, Prometheus(tmp_path, url) as prometheus:

        def all_had_values() -> bool:
            installation.clock.advance(seconds=1)  # faster than time, because a commit is counted some seconds after it
            exporter.fleet.count()
            left[:] = [expression for expression in left if not prometheus.now(expression)]
            return not left

        wait_for(all_had_values, about="each expression to have a value", processes=[prometheus.process])


def test_each_page_of_metrics_is_documented(installation: Installation, new_exporter: Callable[..., Exporter]) -> None:
    exporter = new_exporter(client_secret_expires="2027-05-31")
    live_through_a_little(installation)
    exporter.fleet.count()
    families = set(re.findall(r"^# TYPE token_worker_(\w+)", exporter.page(), re.MULTILINE))

    assert set(re.findall(r"^\| `(\w+)` \|", _DOCUMENT.read_text(), re.MULTILINE)) == families
