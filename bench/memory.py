"""Part 4: the memory of a worker child, which must not grow with the accounts that it has refreshed."""

import time
from dataclasses import dataclass

from bench.contenders import Worker, work
from bench.meter import children, resident
from bench.site import Provider, Site, wait_for

CONNECTIONS, _BATCH = 64, 1_000  # other than in throughput, because each connection needs memory


@dataclass(frozen=True, slots=True)
class Growth:
    """Resident bytes of one worker child after the first and after all refreshes."""

    after_first: int
    after_all: int
    first: int
    refreshes: int

    @property
    def megabytes(self) -> float:
        return (self.after_all - self.after_first) / 1_000_000


def growth(site: Site, provider: Provider, *, accounts: int, first: int, refreshes: int) -> Growth:
    """One child makes all refreshes. Accounts become due again when no due ones are left."""
    granted = provider.granted()
    with work(Worker(site, accounts, children=1, connections=CONNECTIONS, batch=_BATCH)) as processes:

        def reach(number: int) -> int:
            while provider.granted() - granted < number:
                wait_for(
                    f"refresh {number:,}, or an idle fleet",
                    lambda: provider.granted() - granted >= number or _is_idle(site),
                    *processes,
                    seconds=1200,
                )
                site.sql("UPDATE mail_credentials SET refresh_due_at = now() WHERE lease_id IS NULL")
                time.sleep(0.5)
            return resident(child)

        wait_for("the first refresh", lambda: provider.granted() > granted, *processes)
        [child] = children(processes[0].pid)
        after_first = reach(first)
        return Growth(after_first, reach(refreshes), first, refreshes)


def _is_idle(site: Site) -> bool:
    time.sleep(1)
    return not site.sql("SELECT 1 FROM mail_credentials WHERE refresh_due_at <= now() LIMIT 1")
