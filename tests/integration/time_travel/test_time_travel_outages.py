"""Redis is flushed, restarted or down while time passes, and Postgres fails between Microsoft's response and the
commit.

Microsoft is strict here, except where a test says so: a second use of a refresh token ends the grant.
"""

from collections import Counter
from collections.abc import Callable
from itertools import count
from threading import Thread

import pytest

from tests.constants import ANN, BOB, HOUR, MINUTE, NOT_PERSISTED, PERSISTED, RECOVERED
from tests.integration.installation import Installation
from tests.integration.side_effects import GrantWith
from tests.integration.time_travel.checks import (
    assert_no_early_refresh,
    assert_refreshed_by_schedule,
    assert_signed_in_once,
    read,
    refreshed_at,
    triggers,
)
from tests.integration.time_travel.travel import Start
from tests.waiting import HANG_LIMIT
from worker.broker import REFRESH, SWEEP
from worker.devkit.stack import Stack
from worker.devkit.stack.process import ticks
from worker.vault import Purpose

LIFETIME = 3 * HOUR
Harm = Callable[[], object]


@pytest.fixture(name="harm")
def _harm(request: pytest.FixtureRequest, installation: Installation, stores: Stack) -> Harm:
    def restart() -> None:
        stores.valkey.stop()
        stores.valkey.start()

    harms: dict[str, Harm] = {"flushed": installation.services.redis.flushall, "restarted": restart}
    return harms[request.param]


both_harms = pytest.mark.parametrize("harm", ["flushed", "restarted"], indirect=True)


def test_a_cache_that_is_flushed_at_every_sweep_is_rebuilt(installation: Installation, start: Start) -> None:
    """Each flush costs one read of Postgres per account and one log line. The next read is served by Redis again."""
    installation.sign_in(ANN, BOB, lifetime=LIFETIME, strict=True)
    machine = start(10 * MINUTE)

    def stop() -> None:
        machine.work()
        installation.services.redis.flushall()
        read(installation, ANN, BOB, ANN, BOB)

    machine.travel(12 * HOUR, stop=stop)

    flushes = len(machine.sent("sweep"))
    assert flushes >= 71
    assert Counter(installation.logged(RECOVERED)) == {ANN: flushes, BOB: flushes}
    assert_no_early_refresh(installation, LIFETIME, ANN, BOB)
    assert_refreshed_by_schedule(installation, ANN, BOB)


@both_harms
@pytest.mark.parametrize(
    ("worked_off", "waits"),
    [
        pytest.param((), SWEEP, id="a sweep waits"),
        pytest.param((SWEEP,), REFRESH, id="a batch waits"),
        pytest.param((SWEEP, REFRESH), None, id="nothing waits"),
    ],
)
def test_redis_may_be_lost_between_any_two_steps(
    installation: Installation, start: Start, harm: Harm, worked_off: tuple[str, ...], waits: str | None
) -> None:
    """A lost queue costs one sweep, and a lost cache costs a read of Postgres.

    Only every third waiting message is lost, so that the worker makes progress.
    """
    installation.sign_in(ANN, BOB, lifetime=LIFETIME, strict=True)
    machine, moments = start(20 * MINUTE), count()

    def stop() -> None:
        if worked_off:
            machine.work(*worked_off)
        if (waits is None or installation.services.redis.llen(waits)) and next(moments) % 3 == 0:
            harm()
        read(installation, ANN, BOB)

    machine.travel(8 * HOUR, stop=stop)

    assert next(moments) >= 5
    assert not machine.failed
    assert_no_early_refresh(installation, LIFETIME, ANN, BOB)
    assert_refreshed_by_schedule(installation, ANN, BOB)


@both_harms
def test_redis_may_be_lost_between_answer_and_commit(installation: Installation, start: Start, harm: Harm) -> None:
    """A refresh keeps nothing that it needs in Redis, and the entry is written nevertheless."""
    installation.sign_in(ANN, lifetime=LIFETIME, strict=True)
    installation.emulator.add_fault(GrantWith(meanwhile=harm))
    machine = start(20 * MINUTE)

    machine.travel(8 * HOUR)
    read(installation, ANN)

    assert len(refreshed_at(installation, ANN)) >= 3
    assert installation.logged(RECOVERED) == []
    assert_no_early_refresh(installation, LIFETIME, ANN)
    assert_refreshed_by_schedule(installation, ANN)


def test_while_redis_is_down_consumers_refresh_and_then_the_schedule_goes_on(
    installation: Installation, start: Start, stores: Stack
) -> None:
    """Without a broker there are no sweeps.

    A consumer that reads a stale token refreshes it under the lease in Postgres.
    """
    installation.sign_in(ANN, BOB, lifetime=LIFETIME, strict=True)
    machine = start(20 * MINUTE)
    machine.travel(3 * HOUR)

    stores.valkey.stop()
    machine.travel(6 * HOUR, stop=lambda: read(installation, ANN, BOB))

    assert triggers(installation) == {"schedule", "consumer"}
    stores.valkey.start()
    refreshes = installation.query("SELECT count(*) FROM refresh_successes WHERE trigger = 'consumer'")
    machine.travel(6 * HOUR, stop=lambda: read(installation, ANN, BOB))
    assert installation.query("SELECT count(*) FROM refresh_successes WHERE trigger = 'consumer'") == refreshes
    assert_no_early_refresh(installation, LIFETIME, ANN, BOB)
    assert_signed_in_once(installation, ANN, BOB)


def test_a_result_that_postgres_cannot_store_waits_in_the_outbox(
    installation: Installation, start: Start, stores: Stack
) -> None:
    """Postgres fails between Microsoft's response and the commit, and the old token is used up.

    The rotated token exists only in the outbox, so even a restart of Redis must not lose it.
    """
    installation.sign_in(ANN, lifetime=LIFETIME, strict=True)
    installation.emulator.add_fault(GrantWith(meanwhile=stores.postgres.kill), ANN, times=1)
    machine = start(10 * MINUTE)

    machine.travel(LIFETIME * 0.8)
    assert (installation.logged(NOT_PERSISTED), installation.logged(PERSISTED)) == ([ANN], [])
    [at] = refreshed_at(installation, ANN)
    [token] = read(installation, ANN)
    assert token.expires_at == at + LIFETIME

    stores.valkey.stop()
    stores.valkey.start()
    stores.postgres.start()
    machine.travel(10 * MINUTE)
    assert installation.logged(PERSISTED) == [ANN]
    assert installation.stored_secret(Purpose.ACCESS_TOKEN, ANN) == token.value
    assert_signed_in_once(installation, ANN)

    machine.travel(LIFETIME, stop=lambda: read(installation, ANN))
    assert_no_early_refresh(installation, LIFETIME, ANN)
    assert_signed_in_once(installation, ANN)
    assert triggers(installation) == {"schedule"}


def test_a_lost_outbox_costs_a_token_and_not_the_account(
    installation: Installation, start: Start, stores: Stack
) -> None:
    """Microsoft is not strict here and still accepts the token that Postgres has, so even a flush of Redis is
    survived."""
    installation.sign_in(ANN, lifetime=LIFETIME)
    installation.emulator.add_fault(GrantWith(meanwhile=stores.postgres.kill), ANN, times=1)
    machine = start(10 * MINUTE)
    machine.travel(LIFETIME * 0.8)

    installation.services.redis.flushall()
    stores.postgres.start()
    machine.travel(10 * MINUTE)

    assert len(refreshed_at(installation, ANN)) == 2
    read(installation, ANN)
    assert_signed_in_once(installation, ANN)
    assert triggers(installation) == {"schedule"}


def test_without_redis_the_worker_keeps_the_result_until_postgres_is_back(
    installation: Installation, start: Start, stores: Stack
) -> None:
    """Without the outbox the worker has the only copy, and keeps it until Postgres is back."""
    installation.sign_in(ANN, lifetime=LIFETIME, strict=True)

    def lose_both() -> None:
        stores.valkey.kill()
        stores.postgres.kill()

    installation.emulator.add_fault(GrantWith(meanwhile=lose_both), ANN, times=1)
    machine = start(10 * MINUTE)

    def restart_postgres() -> None:
        for _ in ticks(HANG_LIMIT):
            if any(entry["event"] == "Outbox cannot be written" for entry in installation.logs):
                break
        stores.postgres.start()

    operator = Thread(target=restart_postgres)
    operator.start()
    machine.travel(LIFETIME * 0.8)
    operator.join()

    assert (installation.logged(NOT_PERSISTED), installation.logged(PERSISTED)) == ([ANN], [ANN])
    stores.valkey.start()
    read(installation, ANN)
    assert_no_early_refresh(installation, LIFETIME, ANN)
    assert_signed_in_once(installation, ANN)
    assert triggers(installation) == {"schedule"}
