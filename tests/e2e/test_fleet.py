"""Any number of beats and workers is safe: no account is refreshed twice in one cycle."""

from datetime import timedelta
from functools import partial
from itertools import pairwise

from tests.e2e.installation import Installation, emails, wait_for

ACCOUNTS = 500
CYCLES = 2
LIFETIME = timedelta(seconds=24)
CYCLE = LIFETIME / 2  # the shortest time from one refresh to the next
REQUEST_DELAY = timedelta(seconds=8)  # from the worker's time stamp to the emulator's, on a busy machine


def test_two_beats_and_two_workers_send_one_request_per_account_and_cycle(installation: Installation) -> None:
    """500 due accounts cause 500 requests. The next cycle comes half a lifetime later, again with one request each."""
    installation.enrol(*emails(ACCOUNTS), lifetime=LIFETIME)
    workers = [installation.worker(name, WORKER_BATCH_SIZE="25") for name in ("one", "two")]
    beats = [installation.celery("beat") for _ in range(2)]

    for cycle in range(1, CYCLES + 1):
        refreshed = partial(installation.all_refreshed, at_least=cycle)
        wait_for(refreshed, about=f"cycle {cycle}", processes=[*workers, *beats])
    for beat in beats:
        beat.stop()
    wait_for(lambda: _every_result_is_stored(installation), about="every result to be stored", processes=workers)

    asked = installation.emulator.statistics()
    assert asked.failures == 0
    assert min(account.requests for account in asked.by_account.values()) >= CYCLES
    assert min(_gaps(installation)) >= CYCLE - REQUEST_DELAY
    assert _shortest_gap(installation) >= CYCLE
    assert all("Token persisted to database" in worker.output() for worker in workers), "both workers take part"
    assert all("Sending due task sweep" in beat.output() for beat in beats), "both beats take part"


def _every_result_is_stored(installation: Installation) -> bool:
    """Whether each refresh has raised a version by one, so that no worker has made one in vain."""
    versions = installation.sql("SELECT sum(version - 1)::int FROM mail_credentials")
    return versions == [(installation.emulator.statistics().refreshes,)]


def _gaps(installation: Installation) -> list[timedelta]:
    """The times between two requests for one account, by the emulator's clock."""
    accounts = installation.emulator.statistics().by_account.values()
    return [later - earlier for account in accounts for earlier, later in pairwise(account.instants)]


def _shortest_gap(installation: Installation) -> timedelta:
    """The shortest time between two requests for one account, by the workers' ledger."""
    rows = installation.sql("""
        SELECT min(gap) FROM (
            SELECT at - lag(at) OVER (PARTITION BY account_id ORDER BY at) AS gap FROM refresh_events
        ) AS gaps
    """)
    gap: timedelta = rows[0][0]
    return gap
