"""The command that shows the next hours of the fleet."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from worker.cli.output import as_json, print_fields, print_json
from worker.cli.ranges import FiniteRange
from worker.cli.services import views
from worker.domain.simulation import FleetAhead, Minute, simulate

_OUTAGE = re.compile(r"(\d{1,4})(min|h)\+(\d{1,4})(min|h)")
_MINUTES = {"min": 1, "h": 60}
_COLUMNS, _ROWS = 60, 8  # of the chart
_BLOCKS = " ▁▂▃▄▅▆▇█"


class _Outage(click.ParamType[tuple[int, int]]):
    """The first minute of an outage, and its length."""

    name = "from+length"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        found = _OUTAGE.fullmatch(value.replace(" ", ""))
        if not found:
            self.fail("write when it begins and how long it lasts, such as 30min+2h or 0min+90min", param, ctx)
        return int(found[1]) * _MINUTES[found[2]], int(found[3]) * _MINUTES[found[4]]


@click.command("simulate")
@click.option("--hours", type=click.IntRange(1, 72), default=6, show_default=True, help="How far to look ahead.")
@click.option("--rate", type=FiniteRange(0.1, 1_000_000), metavar="N", help="Requests per second; else WORKER_RATE.")
@click.option("--outage", "outages", type=_Outage(), multiple=True, help="Nothing succeeds then: 1h+30min.")
@click.option("--add", "added", type=click.IntRange(0, 100_000_000), default=0, metavar="N", help="N new accounts.")
@as_json
def simulate_(
    hours: int, rate: float | None, outages: tuple[tuple[int, int], ...], added: int, *, json_output: bool
) -> None:
    """Show the next hours of the schedule: requests per minute, the peak, who waits, and grants that end.

    Computed from the due times of all accounts, without a request. Failures and consumers are not in it.
    """
    minutes = hours * 60
    with views() as opened:
        ahead, limit = opened.events.ahead(minutes), rate or opened.rate
    played = simulate(ahead, minutes=minutes, rate=limit, outages=outages, added=added)
    figures = _figures(ahead, played, limit, added)
    if json_output:
        print_json({**figures, "minutes": [asdict(minute) for minute in played]})
        return
    print_fields({name.replace("_", " "): _shown(value) for name, value in figures.items()})
    click.echo()
    for line in chart([minute.requests for minute in played], hours):
        click.echo(line)


COMMANDS: tuple[click.Command, ...] = (simulate_,)


def _figures(ahead: FleetAhead, played: Sequence[Minute], rate: float, added: int) -> dict[str, Any]:
    peak = max(range(len(played)), key=lambda number: played[number].requests)
    worst = max(range(len(played)), key=lambda number: played[number].waiting)
    return {
        "accounts_due": sum(ahead.due.values()) + sum(ahead.daily.values()) + added,
        "mean_lifetime_minutes": round(ahead.lifetime, 1),
        "rate_limit_per_minute": round(rate * 60),
        "requests_per_minute": round(sum(minute.requests for minute in played) / len(played), 1),
        "peak_requests_per_minute": played[peak].requests,
        "peak_in_minutes": peak,
        "most_waiting": played[worst].waiting,
        "most_waiting_in_minutes": worst,
        "most_without_a_live_token": max(minute.without_token for minute in played),
        "waiting_at_the_end": played[-1].waiting,
        "grants_ending": sum(ahead.grants_ending.values()),
    }


def _shown(value: float) -> str:
    return f"{value:,}"


def chart(requests: Sequence[int], hours: int) -> list[str]:
    """Requests per minute over the hours, in blocks: the highest minute of each column."""
    columns = min(_COLUMNS, len(requests))
    bounds = [len(requests) * column // columns for column in range(columns + 1)]
    highest = [max(requests[bounds[n] : bounds[n + 1]]) for n in range(columns)]
    top = max(*highest, 1)
    width = len(f"{top:,}")
    lines = []
    for row in range(_ROWS, 0, -1):
        cells = "".join(_block(value / top * _ROWS - (row - 1)) for value in highest)
        label = f"{top:,}" if row == _ROWS else ""
        lines.append(f"{label:>{width}} │{cells}")
    lines.append(f"{'0':>{width}} └{'─' * columns}")
    lines.append(f"{'':>{width}}  now{f'+{hours} h':>{columns - 3}}")
    return lines


def _block(height: float) -> str:
    return _BLOCKS[round(min(1.0, max(0.0, height)) * (len(_BLOCKS) - 1))]
