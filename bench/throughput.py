"""Part 1: refreshes per second and CPU per refresh, of the worker, the floor and the naive way, in turns."""

import time
from dataclasses import dataclass

from bench.contenders import Contender, work
from bench.meter import cpu_seconds
from bench.site import Provider, Site, wait_for

_WARM = 0.15  # of the accounts; until all connections stand, which costs more than many refreshes
_SPENT = 0.9  # of the accounts; then there may be less to do than could be done


@dataclass(frozen=True, slots=True)
class Trial:
    """What one contender did in one turn. CPU in milliseconds per refresh."""

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
        """Of everybody who has to do with it: what a machine that does nothing else would be busy with."""
        return self.cpu + self.stores + self.provider


def trial(contender: Contender, provider: Provider, *, seconds: float) -> Trial:
    """One turn. Raises RuntimeError if a process ends by itself, or if what was granted is not what is stored."""
    site, granted = contender.site, provider.granted()
    stored = 0 if contender.may_lose else contender.stored()
    last = granted + int(contender.accounts * _SPENT)
    with work(contender) as processes:
        first = granted + contender.accounts * _WARM
        wait_for("the first refreshes", lambda: provider.granted() >= first, *processes)
        roots = [process.pid for process in processes]
        stores = [site.stack.postgres.pid, site.stack.valkey.pid]

        def probe() -> list[float]:
            at = time.monotonic(), float(provider.granted())  # at one instant; the rest takes some time to look up
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
    """Bytes of write-ahead log, and commits."""
    [row] = site.sql(
        "SELECT (pg_current_wal_lsn() - '0/0')::float8, xact_commit::float8"
        " FROM pg_stat_database WHERE datname = current_database()"
    )
    return row[0], row[1]
