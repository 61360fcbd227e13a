"""A mail server has refused a token that seemed to live: one refresh for all who report it, and no storm."""

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


def test_a_refused_token_is_replaced_once_however_many_report_it(
    installation: Installation, client: TokenClient
) -> None:
    """Thirty connections of two processes to one mailbox, all thrown out in the same second."""
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


def test_a_reader_that_saw_the_old_row_does_not_hear_that_the_new_token_is_rejected(
    installation: Installation,
) -> None:
    """The replacement is in the ledger by then, and must not pass for the token that the reporter means."""
    installation.sign_in(ANN)
    ann = account_id(ANN)
    with installation.services.database.begin() as connection:
        read_before = accounts.find(connection, ann)
    installation.services.tokens.report_rejected(ANN, 1)
    installation.services.redis.flushall()  # as it is between the commit and the write to the cache

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
    """Somebody's stale copy was refused, which is no wonder: the newer token is in the cache, or in Postgres."""
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


def test_a_fresh_token_that_is_refused_too_is_no_matter_of_tokens(
    installation: Installation, client: TokenClient
) -> None:
    """The mailbox, its rights or the scope: Microsoft is left alone, and those who report it learn it from a note."""
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


def test_after_ten_minutes_a_refusal_is_news_again(installation: Installation, client: TokenClient) -> None:
    """Whatever it was then may be over."""
    installation.sign_in(ANN)
    version = client.report_rejected(ANN, 1).version
    installation.clock.advance(minutes=10)

    assert client.report_rejected(ANN, version).version == 3
    assert installation.requests == 2


def test_a_token_of_the_schedule_in_between_does_not_start_it_anew(
    installation: Installation, client: TokenClient
) -> None:
    """Ten minutes are ten minutes: the third token would be refused as well."""
    installation.sign_in(ANN)
    client.report_rejected(ANN, 1)
    installation.services.on_demand.refresh_now(account_id(ANN))

    with pytest.raises(TokenRefused):
        client.report_rejected(ANN, 3)
    assert installation.requests == 2


def test_a_refresh_that_failed_does_not_count(installation: Installation, client: TokenClient) -> None:
    """It brought no token that could be refused; the back-off is what holds the next."""
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


def test_a_refresh_under_way_is_waited_for(installation: Installation, client: TokenClient) -> None:
    """A token that lives would do for a reader, but not if it is the refused one."""
    installation.sign_in(ANN)
    installation.clock.advance(minutes=40)

    with ThreadPoolExecutor(1) as pool, installation.in_flight(installation.refresh_due):
        report = pool.submit(client.report_rejected, ANN, 1)

    assert report.result().version == 2
    assert installation.requests == 1


def test_while_postgres_is_away_nothing_is_asked(
    installation: Installation, client: TokenClient, stores: Stack
) -> None:
    """Whether it was refused before, only Postgres knows; a newer token in the cache is another matter."""
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
    """And its refused token is not handed out again in place of an answer."""
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
