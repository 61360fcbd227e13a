"""Part 1: refreshes per second and CPU per refresh, of the worker, the floor and the naive way, in turns."""

import time
from dataclasses import dataclass

from bench.contenders import Contender, work
from bench.meter import cpu_seconds
from bench.site import Provider, wait_for

_WARM = 0.02  # of the accounts
_SPENT = 0.9  # of the accounts; then there may be less to do than could be done


@dataclass(frozen=True, slots=True)
class Trial:
    """What one contender did in one turn. CPU in milliseconds per refresh."""

    contender: str
    latency_ms: int
    refreshes: int
    seconds: float
    cpu: float
    stores: float
    provider: float

    @property
    def rate(self) -> float:
        return self.refreshes / self.seconds


def trial(contender: Contender, provider: Provider, *, latency_ms: int, seconds: float) -> Trial:
    """One turn. Raises AssertionError if what was granted is not what is stored."""
    site = contender.site
    stored, granted = (contender.stored() if contender.name != "naive" else 0), provider.granted()
    last = granted + int(contender.accounts * _SPENT)
    with work(contender) as processes:
        wait_for(lambda: provider.granted() - granted >= contender.accounts * _WARM, *processes)
        roots = [process.pid for process in processes]
        stores = [site.stack.postgres.pid, site.stack.valkey.pid]
        probes = [lambda: float(provider.granted())] + [
            (lambda pids=pids: cpu_seconds(pids)) for pids in (roots, stores, [provider.process.pid])
        ]
        before, begin = [probe() for probe in probes], time.monotonic()
        while time.monotonic() - begin < seconds and provider.granted() < last:
            time.sleep(0.05)
        elapsed, after = time.monotonic() - begin, [probe() for probe in probes]
    refreshes, own, stores_cpu, provider_cpu = (new - old for new, old in zip(after, before, strict=True))
    assert contender.stored() - stored == provider.granted() - granted, "a granted token is not stored"
    each = [spent * 1000 / refreshes for spent in (own, stores_cpu, provider_cpu)]
    return Trial(contender.name, latency_ms, int(refreshes), elapsed, *each)
