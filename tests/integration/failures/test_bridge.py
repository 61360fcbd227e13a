"""Postgres is away and the token in Redis is stale: consumers get a fresh one, and nothing is lost when it is back.

Microsoft is strict here, except where a test says so: whoever spends a refresh token twice has lost the account.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from tests.factories import TurnedClock
from tests.integration.failures.mailboxes import ANN, BOB, LIFETIME, GrantWith, Mailboxes, read
from worker.bootstrap import Services, bootstrap
from worker.cache import Locks
from worker.devkit.emulator import fault_named
from worker.devkit.stack import Stack
from worker.devkit.stack.process import ticks
from worker.domain.account import Grant, Status, account_id
from worker.domain.secret import Secret
from worker.domain.token import CacheEntry
from worker.service.tokens.cache import TokenCache
from worker.settings import Settings
from worker.vault import Purpose, Vault

NOBODY_THERE = "postgresql://nobody@127.0.0.1:9/nothing"


@pytest.fixture(name="cut_off")
def _cut_off(settings: Settings, clock: TurnedClock) -> Iterator[Services]:
    """A process that cannot reach Postgres, while the others can."""
    services = bootstrap(Settings.model_validate(settings.model_dump() | {"database_url": NOBODY_THERE}), utcnow=clock)
    yield services
    services.close()


def entry(mailboxes: Mailboxes, email: str = ANN) -> CacheEntry:
    found = TokenCache(mailboxes.services.cache, Vault(mailboxes.settings.keys)).read(account_id(email))
    assert found is not None
    return found


def waits_in_outbox(mailboxes: Mailboxes) -> bool:
    return bool(mailboxes.services.redis.exists("token-worker:outbox"))


def assert_home(mailboxes: Mailboxes, version: int) -> None:
    """Postgres has what Microsoft gave last, and nothing waits."""
    account = mailboxes.account(ANN)
    assert (account.version, account.status, account.failure, account.lease_until) == (
        version,
        Status.ACTIVE,
        None,
        None,
    )
    newest = mailboxes.emulator.newest_refresh_token(ANN)
    assert mailboxes.stored_refresh_token(ANN) == newest
    assert mailboxes.emulator.accepts(newest)
    assert account.access_token is not None
    assert mailboxes.open(account, account.access_token, Purpose.ACCESS_TOKEN) == read(mailboxes.services).value
    assert not waits_in_outbox(mailboxes)


def test_a_stale_entry_becomes_a_fresh_token_without_postgres(outage: Mailboxes) -> None:
    """From the refresh token in the entry; both stores' next versions follow from it."""
    token = read(outage.services)

    assert (token.version, token.expires_at) == (3, outage.clock.now + LIFETIME)
    assert entry(outage).token == token
    assert waits_in_outbox(outage)
    assert outage.asked(lambda: read(outage.services)) == 0


def test_a_crowd_in_two_processes_costs_one_question(outage: Mailboxes, rival: Services) -> None:
    """Sixteen threads find the same stale entry; spending its refresh token twice would end the grant."""
    with ThreadPoolExecutor(16) as pool:
        tokens = list(pool.map(lambda number: read((outage.services, rival)[number % 2]), range(16)))

    assert len({token.value for token in tokens}) == 1
    assert outage.emulator.statistics().by_account[ANN].requests == 2
    assert outage.emulator.accepts(outage.emulator.newest_refresh_token(ANN))


def by_sweep(mailboxes: Mailboxes, services: Services) -> None:
    assert services.refresher.refresh_due("default") == {"claimed": 0}


def by_read(mailboxes: Mailboxes, services: Services) -> None:
    """Of somebody who finds nothing in Redis; what is there already needs no Postgres."""
    mailboxes.services.redis.delete(f"token-worker:entry:{account_id(ANN)}")
    assert read(services).version == 8


def by_hand(mailboxes: Mailboxes, services: Services) -> None:
    assert services.on_demand.refresh(account_id(ANN)).version == 8


@pytest.mark.parametrize("come_home", [by_sweep, by_read, by_hand])
def test_a_long_outage_is_bridged_and_comes_home_at_once(
    outage: Mailboxes, rival: Services, stores: Stack, come_home: Callable[[Mailboxes, Services], None]
) -> None:
    """Six refreshes, each spending what the one before got; Postgres gets the last, by whoever comes first, and nobody
    has to ask Microsoft for it."""
    for cycle in range(6):
        assert read((outage.services, rival)[cycle % 2]).version == 3 + cycle
        outage.clock.advance(minutes=59 if cycle < 5 else 1)
    stores.postgres.start()

    assert outage.asked(lambda: come_home(outage, rival)) == 0

    assert_home(outage, version=8)
    outage.clock.advance(hours=1)
    assert outage.refresh_due() == {"claimed": 1, "refreshed": 1}
    assert_home(outage, version=9)


def test_what_is_replaced_while_it_is_brought_home_follows_it(
    outage: Mailboxes, rival: Services, stores: Stack
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
    rival.refresher.batches_due(at_most=1)
    assert outage.account(ANN).version == 3
    redis.hset("token-worker:outbox", field, replacement)

    rival.refresher.batches_due(at_most=1)

    assert_home(outage, version=5)


def test_a_token_that_is_stale_when_postgres_is_back_is_refreshed_from_the_newest(
    outage: Mailboxes, stores: Stack
) -> None:
    """The row is overdue and holds a token that has been spent: it is brought up to date before it is claimed."""
    read(outage.services)
    outage.clock.advance(hours=1)
    stores.postgres.start()

    assert read(outage.services).version == 4

    assert_home(outage, version=4)


def test_a_sign_in_meanwhile_is_not_overwritten(signed_in: Mailboxes, cut_off: Services, rival: Services) -> None:
    """Ann has signed in again, in a process that can reach Postgres: what was got from her old grant is dropped."""
    assert read(cut_off).version == 3
    fresh = signed_in.emulator.enrol(ANN)
    signed_in.services.accounts.save(
        [
            Grant(
                email=ANN,
                refresh_token=Secret(fresh.refresh_token),
                access_token=Secret(fresh.access_token),
                expires_at=signed_in.clock.now + LIFETIME,
            )
        ]
    )

    assert rival.refresher.refresh_due("default") == {"claimed": 0}

    assert_home(signed_in, version=3)
    assert read(rival).value == fresh.access_token


def test_the_bridge_goes_on_from_a_sign_in_meanwhile(signed_in: Mailboxes, cut_off: Services) -> None:
    """Both grants have led to a third version. What waits from the old one says nothing about the new one's token,
    which the cut-off process has spent by now: it must come home."""
    read(cut_off)
    signed_in.sign_in(ANN)
    assert read(cut_off).version == 4
    assert waits_in_outbox(signed_in)

    assert signed_in.refresh_due() == {"claimed": 0}

    assert_home(signed_in, version=4)


def test_an_account_paused_meanwhile_stays_paused(signed_in: Mailboxes, cut_off: Services) -> None:
    """An operator said so, and a process that has not heard of it does not undo it: not at once, and not later."""
    read(cut_off)
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
        read(cut_off)


def test_a_pause_behind_several_refreshes_reaches_the_cache(signed_in: Mailboxes, cut_off: Services) -> None:
    """The cache had the second of them already when the pause was published, and would have kept it."""
    for _ in range(2):
        read(cut_off)
        signed_in.clock.advance(hours=1)
    signed_in.services.accounts.pause(ANN)

    signed_in.refresh_due()

    account, cached = signed_in.account(ANN), entry(signed_in)
    assert not waits_in_outbox(signed_in)
    assert (account.status, account.version) == (Status.PAUSED, 4)
    assert (cached.status, cached.version) == (Status.PAUSED, 4)


def test_without_both_stores_the_consumer_still_gets_its_token(
    mailboxes: Mailboxes, stores: Stack, clock: TurnedClock
) -> None:
    """Redis goes down as well, while Microsoft answers. What was got can be kept nowhere, but it can be used; and
    Microsoft, as it is, still takes the refresh token before."""
    mailboxes.sign_in(BOB)
    mailboxes.refresh_due()
    clock.advance(hours=2)
    stores.postgres.stop()
    mailboxes.emulator.add_fault(GrantWith(meanwhile=stores.valkey.stop), times=1)

    token = read(mailboxes.services, BOB)

    assert token.version == 3
    assert token.expires_at > clock.now
    stores.valkey.start()
    stores.postgres.start()
    assert mailboxes.refresh_due() == {"claimed": 1, "returned": 1}  # the lock could not be given back
    mailboxes.services.redis.delete(f"token-worker:lock:{account_id(BOB)}")  # as it ends by itself in a minute
    clock.advance(seconds=5)
    assert mailboxes.refresh_due() == {"claimed": 1, "refreshed": 1}
    assert mailboxes.stored_refresh_token(BOB) == mailboxes.emulator.newest_refresh_token(BOB)


def test_what_microsoft_did_not_rotate_stays(mailboxes: Mailboxes, clock: TurnedClock, stores: Stack) -> None:
    """Two refreshes without a new refresh token: the old one is still the one to use."""
    mailboxes.sign_in(ANN, rotate=False, access_token_lifetime=LIFETIME)
    mailboxes.refresh_due()
    first = mailboxes.stored_refresh_token(ANN)
    stores.postgres.stop()
    for _ in range(2):
        clock.advance(hours=1)
        read(mailboxes.services)
    stores.postgres.start()

    assert mailboxes.refresh_due() == {"claimed": 0}

    assert mailboxes.stored_refresh_token(ANN) == first
    assert_home(mailboxes, version=4)


def test_a_rotated_token_is_not_lost_when_the_next_answer_has_none(
    mailboxes: Mailboxes, clock: TurnedClock, stores: Stack
) -> None:
    """The first refresh has spent the stored token; that the second brings none does not make that one good again."""
    mailboxes.sign_in(ANN, access_token_lifetime=LIFETIME)
    mailboxes.refresh_due()
    clock.advance(hours=1)
    stores.postgres.stop()
    read(mailboxes.services)
    rotated = mailboxes.emulator.newest_refresh_token(ANN)
    clock.advance(hours=1)
    mailboxes.emulator.add_fault(fault_named("no-refresh-token"), times=1)
    read(mailboxes.services)
    stores.postgres.start()

    mailboxes.refresh_due()

    assert mailboxes.account(ANN).version == 4
    assert mailboxes.stored_refresh_token(ANN) == rotated


def test_what_nobody_can_read_in_the_outbox_is_left_there_and_the_token_is_served(outage: Mailboxes) -> None:
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
