"""The command ``status``: the state of the fleet on one screen."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from worker.cli import breakers
from worker.cli.output import as_json, print_fields, print_json, print_line, print_table, print_trouble
from worker.cli.services import views
from worker.domain.duration import duration
from worker.domain.fleet import FleetState, LiveState, StoredState, explain, troubles
from worker.domain.heartbeat import LiveProcess

if TYPE_CHECKING:
    from worker.db.figures import Dimension
    from worker.views import Views

_WATCH_INTERVAL = 5.0  # seconds
_ROWS = 100  # of a table by domain or label
_FIGURES = ("due", "in_flight", "expired", "failing", "unconfigured")


@click.command()
@click.option(
    "--by",
    "dimension",
    type=click.Choice(["client", "domain", "code", "label"]),
    help="Count the accounts of each app registration, domain, code or label.",
)
@click.option(
    "--check", is_flag=True, help="Print one sentence, and exit with 1 if there is trouble. For cron and Nagios."
)
@click.option("--watch", is_flag=True, help="Repeat every five seconds until Ctrl-C.")
@as_json
def status(dimension: "Dimension | None", *, check: bool, watch: bool, json_output: bool) -> None:
    """Show how the fleet stands: accounts, beat and workers, queues, circuit breakers, and what needs you."""
    if sum((check, watch, dimension is not None)) > 1:
        raise click.UsageError("--by, --check and --watch exclude each other")
    with views() as opened:
        if dimension:
            _print_by(opened, dimension, json_output=json_output)
        elif watch:
            _watch(opened, json_output=json_output)
        elif check:
            _check(opened.status.read(), json_output=json_output)
        else:
            _print(opened.status.read(), json_output=json_output)


COMMANDS: tuple[click.Command, ...] = (status,)


def _watch(opened: "Views", *, json_output: bool) -> None:
    try:
        while True:
            state = opened.status.read()
            if not json_output:
                click.clear()  # nothing, if this is no terminal
                print_line(f"{state.at:%Y-%m-%d %H:%M:%S} UTC, every {_WATCH_INTERVAL:.0f} s, Ctrl-C ends it")
            _print(state, json_output=json_output)
            time.sleep(_WATCH_INTERVAL)
    except KeyboardInterrupt:
        return


def _check(state: FleetState, *, json_output: bool) -> None:
    found = troubles(state)
    if json_output:
        print_json({"ok": not found, "troubles": found})
    elif found:
        others = f" And {len(found) - 1} more: see token-worker status" if len(found) > 1 else ""
        print_line(found[0] + others)
    else:
        figures = state.stored.figures if state.stored else {}
        print_line(f"ok: {sum(figures['accounts'].values()):,} accounts, {figures['due']:,} due")
    if found:
        raise SystemExit(1)


def _print_by(opened: "Views", dimension: "Dimension", *, json_output: bool) -> None:
    rows = opened.status.by(dimension)
    if json_output:
        for row in rows:
            print_json({dimension: row["name"], **{name: row[name] for name in row if name != "name"}})
        return
    columns = ("accounts", "failing", "expired", "due", "need_attention")
    print_table(
        (dimension, *(name.replace("_", " ") for name in columns)),
        ((row["name"] or "-", *(row[name] for name in columns)) for row in rows[:_ROWS]),
    )
    if len(rows) > _ROWS:
        print_line(f"and {len(rows) - _ROWS:,} more, which --json prints")


def _print(state: FleetState, *, json_output: bool) -> None:
    found = troubles(state)
    if json_output:
        print_json(_described(state, found))
        return
    print_fields(
        {**_stored_fields(state.stored, state.at), **_live_fields(state.live), "queues": _queues(state.queues)}
    )
    if state.live:
        for process in state.live.processes:
            print_line(_process(process), label="  ")
    for breaker in state.stored.breakers if state.stored else ():
        if not breaker.failures:
            print_line(f"app registration {breaker.client}: {explain(breaker, state.at)}")
    for trouble in found:
        print_trouble(trouble)


def _stored_fields(stored: StoredState | None, at: datetime) -> Mapping[str, Any]:
    """The lines from Postgres; a dash for each while it is away."""
    if stored is None:
        return dict.fromkeys(["accounts", *(name.replace("_", " ") for name in _FIGURES), "last refresh"])
    figures = stored.figures
    oldest, last = figures["oldest_due_at"], figures["last_refreshed_at"]
    return {
        "accounts": ", ".join(f"{count:,} {state}" for state, count in sorted(figures["accounts"].items())) or "none",
        **{name.replace("_", " "): f"{figures[name]:,}" for name in _FIGURES},
        **({"failing with": "; ".join(map(_code, stored.codes))} if stored.codes else {}),
        "oldest overdue by": duration(at - oldest) if oldest else None,
        "last refresh": f"{duration(at - last)} ago" if last else None,
        **({"paused": "; ".join(str(pause.group) for pause in stored.pauses)} if stored.pauses else {}),
    }


def _code(row: Mapping[str, Any]) -> str:
    """``218 AADSTS700016 (contoso.com, 200 of them within the hour)``."""
    among = [row["domain"]] if row["accounts"] > 1 and row["domain"] else []
    lately = "all" if row["lately"] == row["accounts"] else f"{row['lately']:,}"
    among += [f"{lately} within the hour"] if row["lately"] else []
    return f"{row['accounts']:,} {row['code']}" + (f" ({', '.join(among)})" if among else "")


def _live_fields(live: LiveState | None) -> Mapping[str, Any]:
    if live is None:
        return dict.fromkeys(["in outbox", "last sweep", "processes"])
    since = live.since_sweep
    return {
        "in outbox": f"{live.in_outbox:,}",
        "last sweep": f"{duration(since)} ago" if since is not None else None,
        "processes": ", ".join(_roles(live.processes)) or "none",
    }


def _roles(processes: Sequence[LiveProcess]) -> Iterator[str]:
    names = [process.heartbeat.role.value for process in processes]
    for name in dict.fromkeys(names):
        yield f"{names.count(name)} {name}"


def _process(process: LiveProcess) -> str:
    own = process.heartbeat
    parts = [f"{own.name}, version {own.version}, {duration(process.age)} ago"]
    parts += [f"queues {' '.join(own.queues)}"] if own.queues else []
    parts += [f"keys {' '.join(own.key_ids)}"] if own.key_ids else []
    return ", ".join(parts)


def _queues(queues: Mapping[str, int] | None) -> str | None:
    return None if queues is None else ", ".join(f"{name} {depth:,}" for name, depth in queues.items())


def _described(state: FleetState, found: Sequence[str]) -> dict[str, Any]:
    """The state for machines; null while its source is away."""
    stored, live = state.stored, state.live
    figures: Mapping[str, Any] = stored.figures if stored else dict.fromkeys(_NAMES)
    return {
        **figures,
        "codes": stored and [dict(row) for row in stored.codes],
        "breakers": stored and [breakers.describe(each) for each in stored.breakers],
        "pauses": stored and [_pause(pause.group.client, pause.group.domain, pause.since) for pause in stored.pauses],
        "in_outbox": live and live.in_outbox,
        "last_sweep_seconds": _seconds(live.since_sweep) if live else None,
        "processes": live and [_described_process(each) for each in live.processes],
        "queues": state.queues,
        "clock_skew_seconds": {
            "postgres": _seconds(stored.skew if stored else None),
            "redis": _seconds(live.skew if live else None),
        },
        "unavailable": dict(state.unavailable),
        "troubles": list(found),
    }


_NAMES = ("accounts", *_FIGURES, "oldest_due_at", "last_refreshed_at")


def _pause(client: str | None, domain: str | None, since: datetime) -> dict[str, Any]:
    return {"client": client, "domain": domain, "since": since}


def _described_process(process: LiveProcess) -> dict[str, Any]:
    own = process.heartbeat
    return {
        "role": own.role,
        "host": own.host,
        "pid": own.pid,
        "version": own.version,
        "started_at": own.started_at,
        "queues": own.queues,
        "key_ids": own.key_ids,
        "age_seconds": process.age.total_seconds(),
        "clock_skew_seconds": process.skew.total_seconds(),
    }


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()
