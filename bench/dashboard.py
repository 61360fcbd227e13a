"""``python -m bench.dashboard`` draws docs/dashboard.svg: the Grafana dashboard with the data of a fleet in trouble.

It runs the demo's system with 200 mailboxes whose tokens live for 60 to 90 seconds, lets Microsoft fail for a while,
revokes sign-ins, and scrapes the exporter with a real Prometheus every two seconds. All accounts are counted every five
seconds instead of once a minute. Grafana itself takes no part: the expressions are those of the dashboard, and
bench.panels draws them.
"""

import json
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from bench.panels import Line, Picture
from bench.prometheus import Prometheus
from bench.site import ROOT
from worker import clock
from worker.db.session import Database
from worker.devkit.emulator import Emulator, fault_named
from worker.devkit.system import System
from worker.exporter.fleet import Fleet
from worker.exporter.process import make_collector
from worker.exporter.server import Server
from worker.settings import ExporterSettings, load

_DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
_PICTURE = ROOT / "docs" / "dashboard.svg"
_VARIABLES = {"$job": ".*", "$client": ".*", "$__rate_interval": "20s"}
_MAILBOXES, _REVOKED, _BLOCKED = 200, 12, 25
_LIFETIME = timedelta(seconds=60), timedelta(seconds=90)
_INTERVAL = 2  # seconds between two scrapes
_COUNT = 5.0  # seconds between two counts of all accounts


@click.command(help=__doc__)
@click.option("--seconds", type=click.IntRange(min=60), default=240, show_default=True)
def main(seconds: int) -> None:
    with System(None, access_token_lifetime=_LIFETIME) as system, tempfile.TemporaryDirectory() as directory:
        assert system.emulator is not None
        emails = system.enrol(_MAILBOXES)
        with _exporter() as (url, fleet), Prometheus(Path(directory), url, interval=_INTERVAL) as prometheus:
            begin = float(int(time.time()))
            _live(system.emulator, emails, fleet, seconds)
            picture = _picture(prometheus, begin, begin + seconds)
    _PICTURE.write_text(picture)
    click.echo(f"{_PICTURE} is written")


@contextmanager
def _exporter() -> Iterator[tuple[str, Fleet]]:
    """An exporter in this process. Yields its URL and its counts, which the caller triggers."""
    settings = load(ExporterSettings, client_secret_expires=f"{clock.utcnow() + timedelta(days=40):%Y-%m-%d}")
    database = Database(settings.database_url.get_secret_value())
    fleet = Fleet(database, utcnow=clock.utcnow)
    with (
        closing(make_collector(settings, database, fleet, utcnow=clock.utcnow)) as collector,
        Server("127.0.0.1", 0, collector, is_healthy=lambda: True) as server,
    ):
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.url, fleet
        finally:
            server.shutdown()
            thread.join()


def _live(emulator: Emulator, emails: Sequence[str], fleet: Fleet, seconds: int) -> None:
    """A third of the time is quiet. Then Microsoft fails, sign-ins are revoked, and a tenant blocks the app."""

    def lose_sign_ins() -> None:
        for email in emails[:_REVOKED]:
            emulator.revoke(email)

    def block_the_app() -> None:
        for email in emails[-_BLOCKED:]:
            emulator.add_fault(fault_named("700016"), email)

    story: dict[float, Callable[[], None]] = {
        0.35: lambda: emulator.add_fault(fault_named("html-503")),
        0.50: emulator.clear_faults,
        0.65: lose_sign_ins,
        0.75: block_the_app,
    }
    begin = time.monotonic()
    while (elapsed := time.monotonic() - begin) < seconds:
        for share in [share for share in story if share * seconds <= elapsed]:
            story.pop(share)()
        fleet.count()
        time.sleep(_COUNT)


def _picture(prometheus: Prometheus, begin: float, end: float) -> str:
    panels = json.loads(_DASHBOARD.read_text())["panels"]

    def found(panel: Mapping[str, Any]) -> Sequence[Line]:
        return [
            (_name(target["legendFormat"], series["metric"]), {at: float(value) for at, value in series["values"]})
            for target in panel["targets"]
            for series in prometheus.over(_expression(target["expr"]), begin=begin, end=end, step=_INTERVAL)
        ]

    times = [begin + _INTERVAL * number for number in range(int((end - begin) / _INTERVAL) + 1)]
    return Picture(times).draw(
        panels, found, f"{_MAILBOXES} mailboxes, {end - begin:.0f} seconds: Microsoft fails, sign-ins are lost"
    )


def _expression(given: str) -> str:
    for name, value in _VARIABLES.items():
        given = given.replace(name, value)
    return given


def _name(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), legend)


if __name__ == "__main__":
    main()
