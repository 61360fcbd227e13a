"""The rate of requests to Microsoft, across all workers, and the tenants that it throttles."""

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
    """Acquire from the first limiter and then from the second, within the same second.

    Repeated with a fresh app registration if the machine was too busy for that.
    """
    for number in range(20):
        began = monotonic()
        taken = first.acquire(f"client-{number}", wanted), second.acquire(f"client-{number}", 100)
        if monotonic() - began < within:
            return taken
    raise AssertionError("the machine is too busy")


def test_two_processes_share_one_rate(installation: Installation) -> None:
    """Microsoft counts per app registration, not per worker.

    Sixty requests at twenty a second take two seconds after the first twenty.
    """
    both = [installation.another_process(rate=RATE), installation.another_process(rate=RATE)]
    installation.emulator.clock = utcnow
    installation.sign_in(*emails(60), due=True)

    began = monotonic()
    with ThreadPoolExecutor(2) as pool:
        tallies = list(pool.map(lambda services: services.refresher.refresh_due(), both))

    assert sum(tally["refreshed"] for tally in tallies) == 60
    assert monotonic() - began >= 1.5, "with a rate for each process it would take half a second"


def test_a_batch_larger_than_the_rate_is_finished(installation: Installation) -> None:
    """It waits for the rate repeatedly, and leaves nothing to the next sweep."""
    installation.sign_in(*emails(30), due=True)

    assert installation.another_process(rate=RATE).refresher.refresh_due() == {"leased": 30, "refreshed": 30}


def test_a_batch_takes_no_more_of_the_rate_than_is_due(
    installation: Installation, limiter: Callable[..., RateLimiter]
) -> None:
    """A consumer or another batch may need the rest at this moment."""
    installation.sign_in(*emails(3), due=True)

    assert installation.another_process(rate=RATE).refresher.refresh_due() == {"leased": 3, "refreshed": 3}

    assert limiter().acquire("default", RATE) >= RATE - 3


def test_without_redis_each_process_keeps_the_rate_on_its_own(installation: Installation) -> None:
    """Requests are slower than without a limit and faster than configured. They neither stop nor come all at once."""
    alone = installation.another_process(rate=RATE, redis_url=NOBODY_THERE)
    installation.emulator.clock = utcnow
    installation.sign_in(*emails(40), due=True)

    began = monotonic()
    assert alone.refresher.refresh_due()["refreshed"] == 40
    assert monotonic() - began >= 0.7


def test_two_limiters_share_one_rate_through_redis(limiter: Callable[..., RateLimiter]) -> None:
    """Without Redis each limiter has a rate of its own."""
    taken, given = promptly(limiter(), limiter(), 100, within=1.5)
    assert taken == RATE
    assert 1 <= given < RATE

    lonely = [limiter(NOBODY_THERE), limiter(NOBODY_THERE)]
    assert [each.acquire("default", 100) for each in lonely] == [RATE, RATE]


def test_no_more_is_acquired_than_requested(limiter: Callable[..., RateLimiter]) -> None:
    """The rest is left for other processes."""
    assert promptly(limiter(), limiter(), 3, within=0.9) == (3, RATE - 3)


def test_another_app_registration_has_a_rate_of_its_own(limiter: Callable[..., RateLimiter]) -> None:
    """A busy registration does not slow the other one down."""
    both = limiter()

    assert (both.acquire("default", 100), both.acquire("other", 100)) == (RATE, RATE)


@pytest.fixture(name="throttled")
def _throttled(installation: Installation) -> Installation:
    """Forty mailboxes of Contoso and ten of Fabrikam, and Microsoft throttles Contoso for a minute."""
    installation.sign_in(*emails(40), *emails(10, "fabrikam.com"), due=True)
    for email in [*emails(40), "new@contoso.com"]:
        installation.emulator.add_fault(oauth_error("90055"), email)
    return installation


def test_no_request_is_sent_to_a_throttled_tenant(throttled: Installation) -> None:
    """Microsoft answers AADSTS90055 to a few.

    The tenant's other accounts are released until then, in the same batch.
    """
    tally = throttled.refresh_due()

    assert tally["refreshed"] == 10
    assert tally["throttled"] <= throttled.settings.connections
    assert tally["returned"] == 40 - tally["throttled"]
    waiting = [account for account in throttled.accounts() if account.email.endswith("@contoso.com")]
    assert all(account.due_at and 1 <= (account.due_at - NOW) / MINUTE <= 1.1 for account in waiting)
    assert throttled.blamed_accounts() == []
    assert throttled.query("SELECT count(*) FROM oauth_clients") == [(0,)]


def test_all_processes_honour_the_tenants_retry_after(throttled: Installation, other_process: Services) -> None:
    """The sweep and consumers of another process honour it too, for an account without a request so far.

    An operator need not.
    """
    throttled.refresh_due()
    throttled.sign_in("new@contoso.com", "new@fabrikam.com", due=True)

    def sweep_and_read() -> None:
        assert other_process.refresher.refresh_due() == {"leased": 2, "refreshed": 1, "returned": 1}
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


def test_requests_to_the_tenant_resume_after_its_retry_after(installation: Installation, redis_url: str) -> None:
    """The throttle ends by itself."""
    installation.sign_in(*emails(3), due=True)
    installation.emulator.add_fault(oauth_error("90055", retry_after=60))
    installation.refresh_due()
    installation.emulator.clear_faults()
    assert set(paused(redis_url)) == {"contoso.com"}

    assert paused(redis_url, at=installation.clock.advance(minutes=2)) == {}
    assert installation.refresh_due() == {"leased": 3, "refreshed": 3}


def test_a_late_response_does_not_shorten_a_throttle(redis_url: str) -> None:
    """The longest Retry-After counts, and only for the app registration that received it.

    Other processes believe it for a minute at a time.
    """
    with connect(redis_url) as redis:
        throttle = TenantThrottle(redis, utcnow=TurnedClock())
        for seconds in (30, 600, 5):
            throttle.throttle("default", "contoso.com", timedelta(seconds=seconds))
        assert throttle.waits("default", ["contoso.com", "fabrikam.com"]) == {"contoso.com": 10 * MINUTE}

    assert paused(redis_url) == {"contoso.com": MINUTE}
    assert paused(redis_url, "other") == {}


def test_without_redis_a_throttled_tenant_does_not_stop_a_batch(throttled: Installation) -> None:
    """The throttle is not kept for the next batch. The accounts' own back-off limits their requests."""
    alone = throttled.another_process(redis_url=NOBODY_THERE)

    assert alone.refresher.refresh_due()["refreshed"] == 10

    assert throttled.blamed_accounts() == []
