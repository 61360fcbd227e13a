"""Part 1: refreshes per second and CPU per refresh, of the worker, the floor and the naive way, in turns."""

import time
from dataclasses import dataclass

from bench.contenders import Contender, work
from bench.meter import cpu_seconds
from bench.site import Provider, Site, wait_for

_WARM_UP = 0.15  # of the accounts; until then connections are opened, which costs more than many refreshes
_ENOUGH_DUE = 0.9  # of the accounts; after that there may be too few due ones for all processes


@dataclass(frozen=True, slots=True)
class Trial:
    """The figures of one contender in one turn. CPU is in milliseconds per refresh."""

    refreshes: int
    seconds: float
    cpu: float
    stores: float
    provider: float
    wal: float  # bytes per refresh
    commits: float  # per refresh

    @property
    def rate(self) -> float:
        return self.refreshes / self.seconds

    @property
    def all_cpu(self) -> float:
        """The CPU of the contender, the stores and the provider together."""
        return self.cpu + self.stores + self.provider


def trial(contender: Contender, provider: Provider, *, seconds: float) -> Trial:
    """One turn. Raises RuntimeError if a process ends by itself, or if not all granted tokens are stored."""
    site, granted = contender.site, provider.granted()
    stored = 0 if contender.may_lose else contender.stored()
    last = granted + int(contender.accounts * _ENOUGH_DUE)
    with work(contender) as processes:
        first = granted + contender.accounts * _WARM_UP
        wait_for("the first refreshes", lambda: provider.granted() >= first, *processes)
        roots = [process.pid for process in processes]
        stores = [site.stack.postgres.pid, site.stack.valkey.pid]

        def probe() -> list[float]:
            at = time.monotonic(), float(provider.granted())  # at the same instant, because the rest takes time to read
            cpu = [cpu_seconds(pids) * 1000 for pids in (roots, stores, [provider.process.pid])]
            return [*at, *cpu, *_written(site)]

        before = probe()
        end = before[0] + seconds
        wait_for(
            "the end of the turn",
            lambda: time.monotonic() >= end or provider.granted() >= last,
            *processes,
            provider.process,
            seconds=2 * seconds + 60,
        )
        after = probe()
    elapsed, refreshes, *spent = (new - old for new, old in zip(after, before, strict=True))
    kept, given = contender.stored() - stored, provider.granted() - granted
    if kept != given and not contender.may_lose:
        raise RuntimeError(f"{contender.name}: {given} tokens were granted, {kept} are stored")
    return Trial(int(refreshes), elapsed, *(figure / refreshes for figure in spent))


def _written(site: Site) -> tuple[float, float]:
    """The bytes of the write-ahead log, and the number of commits."""
    [row] = site.sql(
        "SELECT (pg_current_wal_lsn() - '0/0')::float8, xact_commit::float8"
        " FROM pg_stat_database WHERE datname = current_database()"
    )
    return row[0], row[1]
