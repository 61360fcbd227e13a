"""Postgres is away and the token in Redis is stale: consumers get a fresh one, and nothing is lost when it is back.

Microsoft is strict here, except where a test says so: whoever spends a refresh token twice has lost the account.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from tests.constants import ANN, BOB, HOUR
from tests.factories import TurnedClock
from tests.integration.installation import Installation
from tests.integration.outboxes import read
from tests.integration.side_effects import GrantWith
from worker.bootstrap import Services
from worker.cache import Locks
from worker.devkit.emulator import fault_named
from worker.devkit.stack import Stack
from worker.devkit.stack.process import ticks
from worker.domain.account import Grant, Status, account_id
from worker.domain.secret import Secret
from worker.domain.token import CacheEntry
from worker.service.tokens.cache import TokenCache
from worker.vault import Purpose, Vault


def entry(installation: Installation, email: str = ANN) -> CacheEntry:
    found = TokenCache(installation.services.cache, Vault(installation.settings.keys)).read(account_id(email))
    assert found is not None
    return found


def waits_in_outbox(installation: Installation) -> bool:
    return bool(installation.services.redis.exists("token-worker:outbox"))


def assert_home(installation: Installation, version: int) -> None:
    """Postgres has what Microsoft gave last, and nothing waits."""
    account = installation.account(ANN)
    assert (account.version, account.status, account.failure, account.lease_until) == (
        version,
        Status.ACTIVE,
        None,
        None,
    )
    newest = installation.emulator.newest_refresh_token(ANN)
    assert installation.stored_secret(Purpose.REFRESH_TOKEN, ANN) == newest
    assert installation.emulator.accepts(newest)
    assert account.access_token is not None
    assert installation.stored_secret(Purpose.ACCESS_TOKEN) == read(installation.services).value
    assert not waits_in_outbox(installation)


def test_a_stale_entry_becomes_a_fresh_token_without_postgres(outage: Installation) -> None:
    """From the refresh token in the entry; both stores' next versions follow from it."""
    token = read(outage.services)

    assert (token.version, token.expires_at) == (3, outage.clock.now + HOUR)
    assert entry(outage).token == token
    assert waits_in_outbox(outage)
    assert outage.requests_during(lambda: read(outage.services)) == 0


def test_a_crowd_in_two_processes_costs_one_question(outage: Installation, other_process: Services) -> None:
    """Sixteen threads find the same stale entry; spending its refresh token twice would end the grant."""
    with ThreadPoolExecutor(16) as pool:
        tokens = list(pool.map(lambda number: read((outage.services, other_process)[number % 2]), range(16)))

    assert len({token.value for token in tokens}) == 1
    assert outage.emulator.statistics().by_account[ANN].requests == 2
    assert outage.emulator.accepts(outage.emulator.newest_refresh_token(ANN))


def by_sweep(installation: Installation, services: Services) -> None:
    assert services.refresher.refresh_due() == {"claimed": 0}


def by_read(installation: Installation, services: Services) -> None:
    """Of somebody who finds nothing in Redis; what is there already needs no Postgres."""
    installation.services.redis.delete(f"token-worker:entry:{account_id(ANN)}")
    assert read(services).version == 8


def by_hand(installation: Installation, services: Services) -> None:
    assert services.on_demand.refresh(account_id(ANN)).version == 8


@pytest.mark.parametrize("come_home", [by_sweep, by_read, by_hand])
def test_a_long_outage_is_bridged_and_comes_home_at_once(
    outage: Installation, other_process: Services, stores: Stack, come_home: Callable[[Installation, Services], None]
) -> None:
    """Six refreshes, each spending what the one before got; Postgres gets the last, by whoever comes first, and nobody
    has to ask Microsoft for it."""
    for cycle in range(6):
        assert read((outage.services, other_process)[cycle % 2]).version == 3 + cycle
        outage.clock.advance(minutes=59 if cycle < 5 else 1)
    stores.postgres.start()

    assert outage.requests_during(lambda: come_home(outage, other_process)) == 0

    assert_home(outage, version=8)
    outage.clock.advance(hours=1)
    assert outage.refresh_due() == {"claimed": 1, "refreshed": 1}
    assert_home(outage, version=9)


def test_what_is_replaced_while_it_is_brought_home_follows_it(
    outage: Installation, other_process: Services, stores: Stack
) -> None:
    """A worker has looked into the outbox, and stores what it saw there a moment after that was spent for the next."""
    redis, field = outage.services.redis, str(account_id(ANN))
    read(outage.services)
    seen = redis.hget("token-worker:outbox", field)
    for version in (4, 5):
        outage.clock.advance(hours=1)
        assert read(outage.services).version == version
    replacement = redis.hget("token-worker:outbox", field)
    stores.postgres.start()
    redis.hset("token-worker:outbox", field, seen)
    other_process.refresher.batches_due(at_most=1)
    assert outage.account(ANN).version == 3
    redis.hset("token-worker:outbox", field, replacement)

    other_process.refresher.batches_due(at_most=1)

    assert_home(outage, version=5)


def test_a_token_that_is_stale_when_postgres_is_back_is_refreshed_from_the_newest(
    outage: Installation, stores: Stack
) -> None:
    """The row is overdue and holds a token that has been spent: it is brought up to date before it is claimed."""
    read(outage.services)
    outage.clock.advance(hours=1)
    stores.postgres.start()

    assert read(outage.services).version == 4

    assert_home(outage, version=4)


def test_a_sign_in_meanwhile_is_not_overwritten(
    signed_in: Installation, without_postgres: Services, other_process: Services
) -> None:
    """Ann has signed in again, in a process that can reach Postgres: what was got from her old grant is dropped."""
    assert read(without_postgres).version == 3
    fresh = signed_in.emulator.enrol(ANN)
    signed_in.services.accounts.save(
        [
            Grant(
                email=ANN,
                refresh_token=Secret(fresh.refresh_token),
                access_token=Secret(fresh.access_token),
                expires_at=signed_in.clock.now + HOUR,
            )
        ]
    )

    assert other_process.refresher.refresh_due() == {"claimed": 0}

    assert_home(signed_in, version=3)
    assert read(other_process).value == fresh.access_token


def test_the_bridge_goes_on_from_a_sign_in_meanwhile(signed_in: Installation, without_postgres: Services) -> None:
    """Both grants have led to a third version. What waits from the old one says nothing about the new one's token,
    which the cut-off process has spent by now: it must come home."""
    read(without_postgres)
    signed_in.sign_in(ANN, due=True)
    assert read(without_postgres).version == 4
    assert waits_in_outbox(signed_in)

    assert signed_in.refresh_due() == {"claimed": 0}

    assert_home(signed_in, version=4)


def test_an_account_paused_meanwhile_stays_paused(signed_in: Installation, without_postgres: Services) -> None:
    """An operator said so, and a process that has not heard of it does not undo it: not at once, and not later."""
    read(without_postgres)
    cache = signed_in.services.cache
    before = cache.get(account_id(ANN))
    assert before
    signed_in.services.accounts.pause(ANN)
    signed_in.services.redis.flushall()
    cache.put([before])  # Redis was away when the pause was published
    for _ in range(3):
        signed_in.refresh_due()
        account = signed_in.account(ANN)
        assert (account.status, account.due_at) == (Status.PAUSED, None)
        assert not waits_in_outbox(signed_in)
        signed_in.clock.advance(hours=1)
        read(without_postgres)


def test_a_pause_behind_several_refreshes_reaches_the_cache(
    signed_in: Installation, without_postgres: Services
) -> None:
    """The cache had the second of them already when the pause was published, and would have kept it."""
    for _ in range(2):
        read(without_postgres)
        signed_in.clock.advance(hours=1)
    signed_in.services.accounts.pause(ANN)

    signed_in.refresh_due()

    account, cached = signed_in.account(ANN), entry(signed_in)
    assert not waits_in_outbox(signed_in)
    assert (account.status, account.version) == (Status.PAUSED, 4)
    assert (cached.status, cached.version) == (Status.PAUSED, 4)


def test_without_both_stores_the_consumer_still_gets_its_token(
    installation: Installation, stores: Stack, clock: TurnedClock
) -> None:
    """Redis goes down as well, while Microsoft answers. What was got can be kept nowhere, but it can be used; and
    Microsoft, as it is, still takes the refresh token before."""
    installation.sign_in(BOB, due=True)
    installation.refresh_due()
    clock.advance(hours=2)
    stores.postgres.stop()
    installation.emulator.add_fault(GrantWith(meanwhile=stores.valkey.stop), times=1)

    token = read(installation.services, BOB)

    assert token.version == 3
    assert token.expires_at > clock.now
    stores.valkey.start()
    stores.postgres.start()
    assert installation.refresh_due() == {"claimed": 1, "returned": 1}  # the lock could not be given back
    installation.services.redis.delete(f"token-worker:lock:{account_id(BOB)}")  # as it ends by itself in a minute
    clock.advance(seconds=5)
    assert installation.refresh_due() == {"claimed": 1, "refreshed": 1}
    assert installation.stored_secret(Purpose.REFRESH_TOKEN, BOB) == installation.emulator.newest_refresh_token(BOB)


def test_what_microsoft_did_not_rotate_stays(installation: Installation, clock: TurnedClock, stores: Stack) -> None:
    """Two refreshes without a new refresh token: the old one is still the one to use."""
    installation.sign_in(ANN, due=True, rotate=False, lifetime=HOUR)
    installation.refresh_due()
    first = installation.stored_secret(Purpose.REFRESH_TOKEN, ANN)
    stores.postgres.stop()
    for _ in range(2):
        clock.advance(hours=1)
        read(installation.services)
    stores.postgres.start()

    assert installation.refresh_due() == {"claimed": 0}

    assert installation.stored_secret(Purpose.REFRESH_TOKEN, ANN) == first
    assert_home(installation, version=4)


def test_a_rotated_token_is_not_lost_when_the_next_answer_has_none(
    installation: Installation, clock: TurnedClock, stores: Stack
) -> None:
    """The first refresh has spent the stored token; that the second brings none does not make that one good again."""
    installation.sign_in(ANN, due=True, lifetime=HOUR)
    installation.refresh_due()
    clock.advance(hours=1)
    stores.postgres.stop()
    read(installation.services)
    rotated = installation.emulator.newest_refresh_token(ANN)
    clock.advance(hours=1)
    installation.emulator.add_fault(fault_named("no-refresh-token"), times=1)
    read(installation.services)
    stores.postgres.start()

    installation.refresh_due()

    assert installation.account(ANN).version == 4
    assert installation.stored_secret(Purpose.REFRESH_TOKEN, ANN) == rotated


def test_what_nobody_can_read_in_the_outbox_is_left_there_and_the_token_is_served(outage: Installation) -> None:
    """It may be the only copy of something, so it is not replaced; and the consumer can do without a place in it."""
    redis = outage.services.redis
    redis.hset("token-worker:outbox", str(account_id(ANN)), b"garbage")

    assert read(outage.services).version == 3

    assert redis.hgetall("token-worker:outbox") == {str(account_id(ANN)).encode(): b"garbage"}


def test_a_lock_is_released_by_its_owner_alone(services: Services) -> None:
    """Whoever was so slow that the lease has ended must not release the lock of the next."""
    locks, lease = Locks(services.redis), timedelta(seconds=30)
    slow = locks.acquire(account_id(ANN), lease=timedelta(milliseconds=1))
    assert slow
    for _ in ticks(5):
        if owner := locks.acquire(account_id(ANN), lease=lease):
            break
    else:
        raise AssertionError("the lease has not ended")

    locks.release([account_id(ANN)], slow)
    assert locks.acquire(account_id(ANN), lease=lease) is None
    locks.release([account_id(ANN)], owner)
    assert locks.acquire(account_id(ANN), lease=lease)
