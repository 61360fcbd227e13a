"""How fast Microsoft is asked, by all workers together, and whom it wants left alone."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta
from time import monotonic

import pytest

from tests.constants import MINUTE
from tests.factories import NOW, TurnedClock, emails
from tests.integration.installation import Installation
from worker.bootstrap import Services
from worker.cache import RateLimiter, TenantThrottle, connect
from worker.clock import utcnow
from worker.devkit.emulator import oauth_error
from worker.domain.errors import BackingOff

RATE = 20
NOBODY_THERE = "redis://127.0.0.1:9/0"


@pytest.fixture(name="limiter")
def _limiter(redis_url: str) -> Iterator[Callable[..., RateLimiter]]:
    with ExitStack() as connections:

        def limiter(url: str = redis_url, per_second: int = RATE) -> RateLimiter:
            return RateLimiter(connections.enter_context(connect(url)), per_second=per_second)

        yield limiter


def paused(redis_url: str, client: str = "default", *, at: datetime = NOW) -> dict[str, timedelta]:
    with connect(redis_url) as redis:
        return TenantThrottle(redis, utcnow=lambda: at).waits(client, {"contoso.com", "fabrikam.com"})


def promptly(first: RateLimiter, second: RateLimiter, wanted: int, *, within: float) -> tuple[int, int]:
    """What the first takes of what is wanted, and the second then, before the first one's second is over. Tried again
    where the machine has been too busy for that, with an app registration that nobody has asked for yet."""
    for number in range(20):
        began = monotonic()
        taken = first.acquire(f"client-{number}", wanted), second.acquire(f"client-{number}", 100)
        if monotonic() - began < within:
            return taken
    raise AssertionError("the machine is too busy")


def test_two_processes_share_one_rate(installation: Installation) -> None:
    """Microsoft counts per app registration, not per worker: sixty at twenty a second take two seconds after the first
    twenty."""
    both = [installation.another_process(rate=RATE), installation.another_process(rate=RATE)]
    installation.emulator.clock = utcnow
    installation.sign_in(*emails(60), due=True)

    began = monotonic()
    with ThreadPoolExecutor(2) as pool:
        tallies = list(pool.map(lambda services: services.refresher.refresh_due(), both))

    assert sum(tally["refreshed"] for tally in tallies) == 60
    assert monotonic() - began >= 1.5, "with a rate for each process it would take half a second"


def test_a_batch_larger_than_the_rate_is_finished(installation: Installation) -> None:
    """It waits for its turn again and again instead of leaving the rest to the next sweep."""
    installation.sign_in(*emails(30), due=True)

    assert installation.another_process(rate=RATE).refresher.refresh_due() == {"claimed": 30, "refreshed": 30}


def test_a_batch_takes_no_more_of_the_rate_than_is_due(
    installation: Installation, limiter: Callable[..., RateLimiter]
) -> None:
    """The rest of it may be what a consumer, or another batch, needs at this moment."""
    installation.sign_in(*emails(3), due=True)

    assert installation.another_process(rate=RATE).refresher.refresh_due() == {"claimed": 3, "refreshed": 3}

    assert limiter().acquire("default", RATE) >= RATE - 3


def test_without_redis_each_process_keeps_the_rate_by_itself(installation: Installation) -> None:
    """Slower than nothing and faster than wanted, but neither a standstill nor a wave."""
    alone = installation.another_process(rate=RATE, redis_url=NOBODY_THERE)
    installation.emulator.clock = utcnow
    installation.sign_in(*emails(40), due=True)

    began = monotonic()
    assert alone.refresher.refresh_due()["refreshed"] == 40
    assert monotonic() - began >= 0.7


def test_two_limiters_share_one_rate_through_redis(limiter: Callable[..., RateLimiter]) -> None:
    """Through Redis; without it each has a rate of its own."""
    taken, given = promptly(limiter(), limiter(), 100, within=1.5)
    assert taken == RATE
    assert 1 <= given < RATE

    lonely = [limiter(NOBODY_THERE), limiter(NOBODY_THERE)]
    assert [each.acquire("default", 100) for each in lonely] == [RATE, RATE]


def test_no_more_is_taken_than_is_wanted(limiter: Callable[..., RateLimiter]) -> None:
    """What is left is for the others."""
    assert promptly(limiter(), limiter(), 3, within=0.9) == (3, RATE - 3)


def test_another_app_registration_has_a_rate_of_its_own(limiter: Callable[..., RateLimiter]) -> None:
    """One that is busy does not slow the other down."""
    both = limiter()

    assert (both.acquire("default", 100), both.acquire("other", 100)) == (RATE, RATE)


@pytest.fixture(name="throttled")
def _throttled(installation: Installation) -> Installation:
    """Forty mailboxes of Contoso and ten of Fabrikam, and Contoso has had enough for a minute."""
    installation.sign_in(*emails(40), *emails(10, "fabrikam.com"), due=True)
    for email in [*emails(40), "new@contoso.com"]:
        installation.emulator.add_fault(oauth_error("90055"), email)
    return installation


def test_a_throttled_tenant_is_left_alone_and_the_others_are_not(throttled: Installation) -> None:
    """AADSTS90055 after a few: the rest of the tenant is given back until then, in the same batch."""
    tally = throttled.refresh_due()

    assert tally["refreshed"] == 10
    assert tally["throttled"] <= throttled.settings.connections
    assert tally["returned"] == 40 - tally["throttled"]
    waiting = [account for account in throttled.accounts() if account.email.endswith("@contoso.com")]
    assert all(account.due_at and 1 <= (account.due_at - NOW) / MINUTE <= 1.1 for account in waiting)
    assert throttled.blamed_accounts() == []
    assert throttled.query("SELECT count(*) FROM oauth_clients") == [(0,)]


def test_everybody_honours_the_tenants_retry_after(throttled: Installation, other_process: Services) -> None:
    """Another process's sweep and consumers too, for an account that nobody has asked about yet. An operator may."""
    throttled.refresh_due()
    throttled.sign_in("new@contoso.com", "new@fabrikam.com", due=True)

    def sweep_and_read() -> None:
        assert other_process.refresher.refresh_due() == {"claimed": 2, "refreshed": 1, "returned": 1}
        with pytest.raises(BackingOff, match="tenant_throttled") as caught:
            other_process.tokens.get("new@contoso.com")
        assert timedelta(0) < caught.value.retry_after <= MINUTE

    assert throttled.requests_during(sweep_and_read) == 1
    due_at = throttled.account("new@contoso.com").due_at
    assert due_at is not None
    assert NOW < due_at <= NOW + MINUTE

    account = throttled.account("new@contoso.com")
    with pytest.raises(BackingOff, match="AADSTS90055"):
        other_process.on_demand.refresh_now(account.id)


def test_when_its_time_is_over_the_tenant_is_asked_again(installation: Installation, redis_url: str) -> None:
    """The pause ends by itself."""
    installation.sign_in(*emails(3), due=True)
    installation.emulator.add_fault(oauth_error("90055", retry_after=60))
    installation.refresh_due()
    installation.emulator.clear_faults()
    assert set(paused(redis_url)) == {"contoso.com"}

    assert paused(redis_url, at=installation.clock.advance(minutes=2)) == {}
    assert installation.refresh_due() == {"claimed": 3, "refreshed": 3}


def test_a_late_answer_does_not_shorten_a_pause(redis_url: str) -> None:
    """The longest that Microsoft has asked for counts; and it counts for the app registration that was told."""
    with connect(redis_url) as redis:
        throttle = TenantThrottle(redis, utcnow=TurnedClock())
        for seconds in (30, 600, 5):
            throttle.throttle("default", "contoso.com", timedelta(seconds=seconds))

    left = paused(redis_url)
    assert set(left) == {"contoso.com"}
    assert left["contoso.com"] > 5 * MINUTE
    assert paused(redis_url, "other") == {}


def test_without_redis_a_throttled_tenant_does_not_stop_the_batch(throttled: Installation) -> None:
    """Nobody remembers the pause for the next batch; the accounts' own back-off has to do."""
    alone = throttled.another_process(redis_url=NOBODY_THERE)

    assert alone.refresher.refresh_due()["refreshed"] == 10

    assert throttled.blamed_accounts() == []
