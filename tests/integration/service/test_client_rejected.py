"""A mail server has rejected a live token: one refresh for all callers that report it, and no storm of requests."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from tests.constants import ANN, BOB, HOUR, MINUTE
from tests.integration import counting
from tests.integration.installation import Installation
from tests.waiting import HANG_LIMIT
from worker.client import AccessToken, AccountInactive, BackingOff, TokenClient, TokenRefused, Unavailable
from worker.client import UnknownAccount as Unknown
from worker.db import accounts
from worker.devkit.emulator import RawAnswer
from worker.devkit.stack import Stack
from worker.domain.account import account_id
from worker.domain.cache_entry import CacheEntry
from worker.domain.errors import NeedsUser
from worker.domain.token import TokenRequirement
from worker.service.tokens.on_demand import Lookup

_REPORTERS = 32


def test_a_rejected_token_is_replaced_once(installation: Installation, client: TokenClient) -> None:
    """Thirty connections of two processes to one mailbox are closed in the same second."""
    installation.sign_in(ANN, strict=True)
    other = installation.another_process()
    start = Barrier(_REPORTERS)

    def report(number: int) -> AccessToken:
        start.wait(HANG_LIMIT)
        return client.report_rejected(ANN, 1) if number % 2 else other.tokens.report_rejected(ANN, 1)

    with ThreadPoolExecutor(_REPORTERS) as pool:
        tokens = set(pool.map(report, range(_REPORTERS)))

    assert {token.version for token in tokens} == {2}
    assert installation.requests == 1
    assert client.get(ANN).version == 2
    [line] = installation.services.events.latest(account_id(ANN))
    assert (line["trigger"], line["outcome"]) == ("rejected", "refreshed")


def test_a_caller_that_saw_the_old_row_gets_the_new_token(
    installation: Installation,
) -> None:
    """The replacement is already in refresh_events, and must not be taken for the token that the caller reports."""
    installation.sign_in(ANN)
    ann = account_id(ANN)
    with installation.services.database.begin() as connection:
        read_before = accounts.find(connection, ann)
    installation.services.tokens.report_rejected(ANN, 1)
    installation.services.redis.flushall()  # the state between the commit and the write to the cache

    assert read_before
    seen = Lookup(CacheEntry.of(read_before), read_before)
    lookup = installation.services.on_demand.refresh(ann, ANN, TokenRequirement(newer_than=1), seen)

    assert lookup.error is None
    assert lookup.entry
    assert lookup.entry.version == 2
    assert installation.requests == 1


@pytest.mark.parametrize("flushed", [False, True])
def test_a_report_of_an_old_token_causes_no_request(
    installation: Installation, client: TokenClient, *, flushed: bool
) -> None:
    """The reported token was outdated, so its rejection means nothing. The newer one is in the cache or in Postgres."""
    installation.sign_in(ANN)
    client.get(ANN)
    installation.clock.advance(minutes=40)
    installation.refresh_due()
    if flushed:
        installation.services.redis.flushall()

    with counting.statements() as statements:
        assert client.report_rejected(ANN, 1).version == 2

    assert len(statements) == int(flushed)
    assert installation.requests == 1
    assert client.get(ANN).version == 2


def test_a_second_rejection_causes_no_refresh(installation: Installation, client: TokenClient) -> None:
    """The cause is the mailbox, its rights or the scope. No request is sent, and callers get the cached failure."""
    installation.sign_in(ANN)
    second = client.report_rejected(ANN, 1)
    installation.clock.advance(minutes=4)

    with pytest.raises(TokenRefused) as refusal:
        client.report_rejected(ANN, second.version)
    with counting.statements() as statements, pytest.raises(TokenRefused):
        installation.services.tokens.report_rejected(ANN, second.version)

    assert refusal.value.code == "token_refused"
    assert refusal.value.retry_after == 6 * MINUTE
    assert "administrator" in refusal.value.advice
    assert statements == []
    assert installation.requests == 1
    assert client.get(ANN) == second, "who only reads is not concerned"


def test_after_ten_minutes_a_rejection_causes_a_refresh_again(installation: Installation, client: TokenClient) -> None:
    """The earlier cause may be gone by then."""
    installation.sign_in(ANN)
    version = client.report_rejected(ANN, 1).version
    installation.clock.advance(minutes=10)

    assert client.report_rejected(ANN, version).version == 3
    assert installation.requests == 2


def test_a_scheduled_refresh_does_not_restart_the_ten_minutes(installation: Installation, client: TokenClient) -> None:
    """A third token would be rejected as well, so a scheduled refresh does not start the ten minutes anew."""
    installation.sign_in(ANN)
    client.report_rejected(ANN, 1)
    installation.services.on_demand.refresh_now(account_id(ANN))

    with pytest.raises(TokenRefused):
        client.report_rejected(ANN, 3)
    assert installation.requests == 2


def test_a_refresh_that_failed_does_not_count(installation: Installation, client: TokenClient) -> None:
    """It issued no token that could be rejected. The back-off delays the next refresh."""
    installation.sign_in(ANN)
    installation.emulator.add_fault(RawAnswer(b"", 503), times=1)
    for _ in range(2):
        with pytest.raises(BackingOff):
            client.report_rejected(ANN, 1)
    with pytest.raises(BackingOff) as raised:
        client.report_rejected(ANN, 1)
    assert installation.requests == 1
    assert client.get(ANN).version == 1, "to who has not seen it refused, it is a token that lives"

    installation.clock.now += raised.value.retry_after
    assert client.report_rejected(ANN, 1).version == 2


def test_a_report_waits_for_a_refresh_in_flight(installation: Installation, client: TokenClient) -> None:
    """A reader would get the live token meanwhile, but not if it is the rejected one."""
    installation.sign_in(ANN)
    installation.clock.advance(minutes=40)

    with ThreadPoolExecutor(1) as pool, installation.in_flight(installation.refresh_due):
        report = pool.submit(client.report_rejected, ANN, 1)

    assert report.result().version == 2
    assert installation.requests == 1


def test_while_postgres_is_down_a_report_causes_no_request(
    installation: Installation, client: TokenClient, stores: Stack
) -> None:
    """Only Postgres knows whether an earlier token was rejected. A newer token in the cache is still served."""
    installation.sign_in(ANN, BOB)
    installation.clock.advance(minutes=40)
    installation.services.on_demand.refresh_now(account_id(BOB))
    stores.postgres.stop()

    with pytest.raises(Unavailable):
        client.report_rejected(ANN, 1)
    assert client.report_rejected(BOB, 1).version == 2
    assert client.get(ANN).version == 1
    assert installation.requests == 1


def test_a_report_for_a_failing_account_raises_its_failure(installation: Installation, client: TokenClient) -> None:
    """Its rejected token is not served again in place of an error."""
    installation.sign_in(ANN, BOB, lifetime=HOUR)
    installation.services.accounts.pause(ANN)
    installation.query(
        "UPDATE mail_credentials SET status = 'reauth_required', failure_code = 'AADSTS50173',"
        " failure_count = 1 WHERE email = :email",
        email=BOB,
    )
    installation.services.redis.flushall()

    with pytest.raises(AccountInactive):
        client.report_rejected(ANN, 2)
    with pytest.raises(NeedsUser):
        client.report_rejected(BOB, 1)
    with pytest.raises(Unknown):
        client.report_rejected("nobody@contoso.com", 1)
    assert installation.requests == 0
