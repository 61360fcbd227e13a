"""While time passes, Redis is flushed, restarted or away, and Postgres fails between Microsoft's answer and the commit.

Microsoft is strict here, except where a test says so: whoever spends a refresh token twice has lost the account.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from threading import Thread

import pytest

from tests.integration.time_travel_world import (
    ANN,
    BOB,
    HOUR,
    MINUTE,
    NOT_PERSISTED,
    PERSISTED,
    RECOVERED,
    World,
)
from tests.integration.time_travel_world import _clock as _clock
from tests.integration.time_travel_world import _emulator as _emulator
from tests.integration.time_travel_world import _world as _world
from worker.broker import REFRESH, SWEEP
from worker.devkit.emulator import Tampered
from worker.devkit.stack import Stack
from worker.devkit.stack.process import ticks
from worker.vault import Purpose

LIFETIME = 3 * HOUR
Harm = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Meanwhile(Tampered):
    """No change to the answer: something else happens after the grant, before the answer leaves."""

    harm: Harm

    def bend(self, document: Mapping[str, object]) -> dict[str, object]:
        self.harm()
        return super().bend(document)


@pytest.fixture(name="stores")
def _stores(world: World, stack: Stack) -> Iterator[Stack]:
    """Both servers, to be harmed: they run again when the test is over, whatever it did."""
    yield stack
    stack.valkey.start()
    stack.postgres.start()


@pytest.fixture(name="harm")
def _harm(request: pytest.FixtureRequest, world: World, stores: Stack) -> Harm:
    def restart() -> None:
        stores.valkey.stop()
        stores.valkey.start()

    harms: dict[str, Harm] = {"flushed": world.services.redis.flushall, "restarted": restart}
    return harms[request.param]


both_harms = pytest.mark.parametrize("harm", ["flushed", "restarted"], indirect=True)


def test_a_cache_that_is_flushed_at_every_sweep_is_rebuilt(world: World) -> None:
    """One read of Postgres per account and flush, told to the operator, and the next read is served by Redis again."""
    world.sign_in(ANN, BOB, access_token_lifetime=LIFETIME, strict=True)
    machine = world.start(10 * MINUTE)

    def stop() -> None:
        machine.work()
        world.services.redis.flushall()
        world.read(ANN, BOB, ANN, BOB)

    machine.travel(12 * HOUR, stop=stop)

    flushes = len(machine.sent("sweep"))
    assert flushes >= 71
    assert Counter(world.told(RECOVERED)) == {ANN: flushes, BOB: flushes}
    world.assert_no_haste(LIFETIME, ANN, BOB)
    world.assert_unattended(ANN, BOB)


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
    world: World, harm: Harm, worked_off: tuple[str, ...], waits: str | None
) -> None:
    """What is in a queue costs a tick at most, and what is in the cache a read of Postgres. Every third time that
    something waits it is hit, so that the worker gets along at all."""
    world.sign_in(ANN, BOB, access_token_lifetime=LIFETIME, strict=True)
    machine, moments = world.start(20 * MINUTE), count()

    def stop() -> None:
        if worked_off:
            machine.work(*worked_off)
        if (waits is None or world.services.redis.llen(waits)) and next(moments) % 3 == 0:
            harm()
        world.read(ANN, BOB)

    machine.travel(8 * HOUR, stop=stop)

    assert next(moments) >= 5
    assert not machine.failed
    world.assert_no_haste(LIFETIME, ANN, BOB)
    world.assert_unattended(ANN, BOB)


@both_harms
def test_redis_may_be_lost_between_answer_and_commit(world: World, harm: Harm) -> None:
    """Nothing that a refresh needs is kept in Redis, and the entry is published all the same."""
    world.sign_in(ANN, access_token_lifetime=LIFETIME, strict=True)
    world.emulator.add_fault(Meanwhile(harm=harm))
    machine = world.start(20 * MINUTE)

    machine.travel(8 * HOUR)
    world.read(ANN)

    assert len(world.refreshed_at(ANN)) >= 3
    assert world.told(RECOVERED) == []
    world.assert_no_haste(LIFETIME, ANN)
    world.assert_unattended(ANN)


def test_while_redis_is_away_consumers_refresh_and_then_the_schedule_goes_on(world: World, stores: Stack) -> None:
    """Without a broker nobody sweeps: who reads a stale token refreshes it, under the lease in Postgres."""
    world.sign_in(ANN, BOB, access_token_lifetime=LIFETIME, strict=True)
    machine = world.start(20 * MINUTE)
    machine.travel(3 * HOUR)

    stores.valkey.stop()
    machine.travel(6 * HOUR, stop=lambda: world.read(ANN, BOB))

    assert world.triggers() == {"schedule", "consumer"}
    stores.valkey.start()
    asked = world.query("SELECT count(*) FROM refresh_events WHERE trigger = 'consumer'")
    machine.travel(6 * HOUR, stop=lambda: world.read(ANN, BOB))
    assert world.query("SELECT count(*) FROM refresh_events WHERE trigger = 'consumer'") == asked
    world.assert_no_haste(LIFETIME, ANN, BOB)
    world.assert_signed_in_once(ANN, BOB)


def test_an_answer_that_postgres_cannot_take_waits_in_the_outbox(world: World, stores: Stack) -> None:
    """Postgres dies between Microsoft's answer and the commit, and the token before is spent: the rotated one exists
    nowhere but here. Not even a restart of Redis may lose it now."""
    world.sign_in(ANN, access_token_lifetime=LIFETIME, strict=True)
    world.emulator.add_fault(Meanwhile(harm=stores.postgres.kill), ANN, times=1)
    machine = world.start(10 * MINUTE)

    machine.travel(LIFETIME * 0.8)
    assert (world.told(NOT_PERSISTED), world.told(PERSISTED)) == ([ANN], [])
    [at] = world.refreshed_at(ANN)
    [token] = world.read(ANN)
    assert token.expires_at == at + LIFETIME

    stores.valkey.stop()
    stores.valkey.start()
    stores.postgres.start()
    machine.travel(10 * MINUTE)
    assert world.told(PERSISTED) == [ANN]
    assert world.opened(ANN, Purpose.ACCESS_TOKEN) == token.value
    world.assert_signed_in_once(ANN)

    machine.travel(LIFETIME, stop=lambda: world.read(ANN))
    world.assert_no_haste(LIFETIME, ANN)
    world.assert_signed_in_once(ANN)
    assert world.triggers() == {"schedule"}


def test_an_outbox_that_is_lost_costs_a_token_and_not_the_account(world: World, stores: Stack) -> None:
    """Microsoft as it is, not strict: it still takes the token that Postgres has, so Redis may even be flushed now."""
    world.sign_in(ANN, access_token_lifetime=LIFETIME)
    world.emulator.add_fault(Meanwhile(harm=stores.postgres.kill), ANN, times=1)
    machine = world.start(10 * MINUTE)
    machine.travel(LIFETIME * 0.8)

    world.services.redis.flushall()
    stores.postgres.start()
    machine.travel(10 * MINUTE)

    assert len(world.refreshed_at(ANN)) == 2
    world.read(ANN)
    world.assert_signed_in_once(ANN)
    assert world.triggers() == {"schedule"}


def test_without_redis_as_well_the_answer_waits_for_postgres(world: World, stores: Stack) -> None:
    """With the outbox gone too, the only copy is in the hand of the one who got it, who does not let go of it."""
    world.sign_in(ANN, access_token_lifetime=LIFETIME, strict=True)

    def lose_both() -> None:
        stores.valkey.kill()
        stores.postgres.kill()

    world.emulator.add_fault(Meanwhile(harm=lose_both), ANN, times=1)
    machine = world.start(10 * MINUTE)

    def bring_postgres_back() -> None:
        for _ in ticks(60):
            if any(entry["event"] == "Outbox cannot be written" for entry in world.logs):
                break
        stores.postgres.start()

    operator = Thread(target=bring_postgres_back)
    operator.start()
    machine.travel(LIFETIME * 0.8)
    operator.join()

    assert (world.told(NOT_PERSISTED), world.told(PERSISTED)) == ([ANN], [ANN])
    stores.valkey.start()
    world.read(ANN)
    world.assert_no_haste(LIFETIME, ANN)
    world.assert_signed_in_once(ANN)
    assert world.triggers() == {"schedule"}
