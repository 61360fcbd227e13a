"""A worker has a lease in Postgres, whoever cannot reach Postgres a lock in Redis: never do two spend one token.

Microsoft is strict here: whoever spends a refresh token twice has lost the account.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from redis import Redis

from tests.e2e.installation import wait_for
from tests.factories import TurnedClock
from tests.integration.failures.lossy_proxy import LossyProxy
from tests.integration.failures.mailboxes import ANN, GrantWith, Mailboxes, read
from tests.integration.service import counting
from worker.bootstrap import Services, bootstrap
from worker.cache import Locks, OutboxStore
from worker.db import leases
from worker.domain.account import Lease, LeaseId, account_id
from worker.domain.token import AccessToken
from worker.service.accounts.reader import AccountReader
from worker.service.custody import Custody
from worker.service.refresh.outbox import Outbox
from worker.service.tokens.cache import TokenCache
from worker.settings import Settings
from worker.vault import Vault

LEASE = timedelta(seconds=60)
IN_TIME = 12  # seconds; who is asking waits no longer than fifteen for its answer
NOBODY_THERE = "postgresql://nobody@127.0.0.1:9/nothing"


def settings_with(settings: Settings, database_url: str) -> Settings:
    return Settings.model_validate(settings.model_dump() | {"database_url": database_url})


@pytest.fixture(name="cut_off")
def _cut_off(settings: Settings, clock: TurnedClock) -> Iterator[Services]:
    """A process that cannot reach Postgres, while the others can."""
    services = bootstrap(settings_with(settings, NOBODY_THERE), utcnow=clock)
    yield services
    services.close()


def claim(mailboxes: Mailboxes) -> Lease:
    with mailboxes.services.database.begin() as connection:
        [claimed] = leases.lease_due(
            connection,
            client="default",
            lease_id=LeaseId(uuid4()),
            limit=1,
            lease=LEASE,
            now=mailboxes.clock.now,
        )
    return claimed


def custody(mailboxes: Mailboxes) -> Custody:
    redis, vault, utcnow = mailboxes.services.redis, Vault(mailboxes.settings.keys), mailboxes.clock
    recovery = Outbox(
        database=mailboxes.services.database,
        outbox=OutboxStore(redis),
        accounts=AccountReader(database=mailboxes.services.database, vault=vault, utcnow=utcnow),
        entries=TokenCache(mailboxes.services.cache, vault),
        utcnow=utcnow,
    )
    return Custody(locks=Locks(redis), recovery=recovery, lease=LEASE)


@contextmanager
def waiting_for(redis: Redis, command: str) -> Iterator[None]:
    """Whoever is sent off in the block has tried the lock when it is over; this is the command for that."""
    before = counting.so_far(redis)[command]
    yield
    wait_for(lambda: counting.so_far(redis)[command] > before, about="somebody to try the lock", seconds=IN_TIME)


def test_a_consumer_without_postgres_waits_for_the_worker_that_is_asking(
    signed_in: Mailboxes, cut_off: Services
) -> None:
    """And then has what the worker got."""
    reads: list[Future[AccessToken]] = []
    redis = signed_in.services.redis

    with ThreadPoolExecutor(1) as consumer:

        def want() -> None:
            with waiting_for(redis, "set"):
                reads.append(consumer.submit(read, cut_off))

        signed_in.emulator.add_fault(GrantWith(meanwhile=want), times=1)
        assert signed_in.asked(signed_in.refresh_due) == 1
        token = reads[0].result()

    assert token.version == 3
    assert token == read(signed_in.services)
    assert signed_in.emulator.accepts(signed_in.stored_refresh_token(ANN))


def test_a_worker_gives_back_what_a_consumer_without_postgres_is_asking_about(
    signed_in: Mailboxes, cut_off: Services
) -> None:
    """What the consumer gets comes home with the next batch; nobody asks again."""
    swept: list[dict[str, int]] = []
    signed_in.emulator.add_fault(GrantWith(meanwhile=lambda: swept.append(signed_in.refresh_due())), times=1)

    assert signed_in.asked(lambda: read(cut_off)) == 1
    assert swept == [{"claimed": 1, "returned": 1}]

    assert signed_in.asked(signed_in.refresh_due) == 0
    account = signed_in.account(ANN)
    assert (account.version, account.lease_until, account.failure) == (3, None, None)
    assert signed_in.stored_refresh_token(ANN) == signed_in.emulator.newest_refresh_token(ANN)


def test_an_operator_waits_for_a_consumer_without_postgres(signed_in: Mailboxes, cut_off: Services) -> None:
    """A refresh by hand spends no token that somebody has just spent."""
    refreshed: list[Future[AccessToken]] = []
    redis = signed_in.services.redis

    with ThreadPoolExecutor(1) as operator:

        def want() -> None:
            with waiting_for(redis, "evalsha"):
                refreshed.append(operator.submit(signed_in.services.on_demand.refresh, account_id(ANN)))

        signed_in.emulator.add_fault(GrantWith(meanwhile=want), times=1)
        token = read(cut_off)

        assert refreshed[0].result() == token
    assert signed_in.emulator.statistics().by_account[ANN].requests == 2


def test_an_answer_that_waits_in_the_outbox_keeps_the_claim_from_being_spent(
    signed_in: Mailboxes, cut_off: Services
) -> None:
    """The claim was made before; the lock was free again; only the outbox tells that the token is spent."""
    claimed = claim(signed_in)
    read(cut_off)

    assert list(custody(signed_in).take([claimed])) == [claimed]


def test_what_a_dead_worker_has_shown_is_taken_over_with_its_lease(signed_in: Mailboxes) -> None:
    """Among workers the lease decides. The dead one may even come back: what it gives up is not its own any more."""
    locks, first = custody(signed_in), claim(signed_in)
    assert locks.take([first]) == {}
    signed_in.clock.now = first.lease_until
    second = claim(signed_in)

    assert locks.take([second]) == {}
    locks.end([first])

    assert Locks(signed_in.services.redis).acquire(second.account_id, lease=LEASE) is None
    locks.end([second])
    assert Locks(signed_in.services.redis).acquire(second.account_id, lease=LEASE)


def test_nothing_is_left_locked_after_a_batch(signed_in: Mailboxes) -> None:
    """Or a consumer would wait for a lease to end when Postgres is lost."""
    signed_in.refresh_due()

    assert signed_in.services.redis.keys("token-worker:lock:*") == []


def test_a_commit_whose_confirmation_is_lost_is_ones_own(
    signed_in: Mailboxes, settings: Settings, clock: TurnedClock
) -> None:
    """The connection breaks after the commit: tried again, it looks as if another worker had been quicker. It counts,
    is published, and stands in the ledger once."""
    with LossyProxy(settings.database_url.get_secret_value()) as proxy:
        services = bootstrap(settings_with(settings, proxy.url), utcnow=clock)
        signed_in.emulator.add_fault(GrantWith(meanwhile=proxy.lose_next_confirmation), times=1)

        assert services.refresher.refresh_due() == {"claimed": 1, "refreshed": 1}
        assert proxy.lost == 1
        services.close()

    token = read(signed_in.services)
    assert token.version == signed_in.account(ANN).version == 3
    assert signed_in.asked(lambda: read(signed_in.services)) == 0
    assert len(signed_in.services.events.latest(account_id(ANN))) == 2
