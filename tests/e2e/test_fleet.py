"""Any number of beats and workers is safe: no account is refreshed twice in one cycle."""

from datetime import timedelta
from functools import partial

from tests.constants import PERSISTED, SECOND
from tests.e2e.deployment import Deployment
from tests.factories import emails
from tests.waiting import wait_for

ACCOUNTS = 500
CYCLES = 2
LIFETIME = timedelta(seconds=24)
CYCLE = LIFETIME / 2  # the shortest time from one refresh to the next


def test_two_beats_and_two_workers_send_one_request_per_account_and_cycle(deployment: Deployment) -> None:
    """500 due accounts cause 500 requests. The next cycle comes half a lifetime later, again with one request each."""
    deployment.add_due_accounts(*emails(ACCOUNTS), lifetime=LIFETIME)
    workers = [deployment.worker(name, WORKER_BATCH_SIZE="25") for name in ("one", "two")]
    beats = [deployment.celery("beat") for _ in range(2)]

    for cycle in range(1, CYCLES + 1):
        refreshed = partial(deployment.all_refreshed, at_least=cycle)
        wait_for(refreshed, about=f"cycle {cycle}", processes=[*workers, *beats])
    for beat in beats:
        beat.stop()
    wait_for(lambda: _every_result_is_stored(deployment), about="every result to be stored", processes=workers)

    statistics = deployment.emulator.statistics()
    assert statistics.failures == 0
    assert min(account.requests for account in statistics.by_account.values()) >= CYCLES
    assert _shortest_gap(deployment) >= CYCLE - SECOND
    assert all(PERSISTED in worker.output() for worker in workers), "both workers take part"
    assert all("Sending due task sweep" in beat.output() for beat in beats), "both beats take part"


def _every_result_is_stored(deployment: Deployment) -> bool:
    """Whether each refresh has raised a version by one, so that no worker has made one in vain."""
    versions = deployment.sql("SELECT sum(version - 1)::int FROM mail_credentials")
    return versions == [(deployment.emulator.statistics().refreshes,)]


def _shortest_gap(deployment: Deployment) -> timedelta:
    """The shortest time between two requests for one account, by the workers' own records, which are exact to a second.

    The instants at which the emulator received them would depend on the load of the machine.
    """
    rows = deployment.sql("""
        SELECT min(gap) FROM (
            SELECT at - lag(at) OVER (PARTITION BY refresh >> 16 ORDER BY at) AS gap
            FROM refresh_successes, unnest(refreshes) AS refresh
        ) AS gaps
    """)
    gap: timedelta = rows[0][0]
    return gap
