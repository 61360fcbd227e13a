"""A mail server has refused a token that seemed to live: one refresh for all who report it, and no storm."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from tests.integration.service import counting
from tests.integration.service.house import ANN, BOB, HOUR, MINUTE, House
from worker.client import AccessToken, AccountInactive, BackingOff, TokenClient, TokenRefused, Unavailable
from worker.client import UnknownAccount as Unknown
from worker.db import accounts
from worker.devkit.emulator import RawAnswer
from worker.devkit.stack import Stack
from worker.domain.account import account_id
from worker.domain.cached_failure import TokenRequirement
from worker.domain.errors import NeedsUser

_REPORTERS = 32


def test_a_refused_token_is_replaced_once_however_many_report_it(house: House, client: TokenClient) -> None:
    """Thirty connections of two processes to one mailbox, all thrown out in the same second."""
    house.sign_in(ANN, strict=True)
    other = house.another()
    start = Barrier(_REPORTERS)

    def report(number: int) -> AccessToken:
        start.wait(30)
        return client.report_rejected(ANN, 1) if number % 2 else other.tokens.report_rejected(ANN, 1)

    with ThreadPoolExecutor(_REPORTERS) as pool:
        tokens = set(pool.map(report, range(_REPORTERS)))

    assert {token.version for token in tokens} == {2}
    assert house.asked() == 1
    assert client.get(ANN).version == 2
    [line] = house.services.events.latest(account_id(ANN))
    assert (line["trigger"], line["outcome"]) == ("rejected", "refreshed")


def test_who_has_read_the_row_before_it_was_replaced_is_not_told_that_the_new_one_is_refused(house: House) -> None:
    """The replacement is in the ledger by then, and must not pass for the token that the reporter means."""
    house.sign_in(ANN)
    ann = account_id(ANN)
    with house.services.database.begin() as connection:
        read_before = accounts.find(connection, ann)
    house.services.tokens.report_rejected(ANN, 1)
    house.services.redis.flushall()  # as it is between the commit and the write to the cache

    standing = house.services.on_demand.obtain(ann, ANN, TokenRequirement(newer_than=1), seen=read_before)

    assert standing.error is None
    assert standing.entry.version == 2
    assert house.asked() == 1


@pytest.mark.parametrize("flushed", [False, True])
def test_a_report_of_an_old_token_asks_nobody(house: House, client: TokenClient, *, flushed: bool) -> None:
    """Somebody's stale copy was refused, which is no wonder: the newer token is in the cache, or in Postgres."""
    house.sign_in(ANN)
    client.get(ANN)
    house.clock.advance(minutes=40)
    house.services.refresher.refresh_due()
    if flushed:
        house.services.redis.flushall()

    with counting.sql() as statements:
        assert client.report_rejected(ANN, 1).version == 2

    assert len(statements) == int(flushed)
    assert house.asked() == 1
    assert client.get(ANN).version == 2


def test_a_fresh_token_that_is_refused_too_is_no_matter_of_tokens(house: House, client: TokenClient) -> None:
    """The mailbox, its rights or the scope: Microsoft is left alone, and those who report it learn it from a note."""
    house.sign_in(ANN)
    second = client.report_rejected(ANN, 1)
    house.clock.advance(minutes=4)

    with pytest.raises(TokenRefused) as refusal:
        client.report_rejected(ANN, second.version)
    with counting.sql() as statements, pytest.raises(TokenRefused):
        house.services.tokens.report_rejected(ANN, second.version)

    assert refusal.value.code == "token_refused"
    assert refusal.value.retry_after == 6 * MINUTE
    assert "administrator" in refusal.value.advice
    assert statements == []
    assert house.asked() == 1
    assert client.get(ANN) == second, "who only reads is not concerned"


def test_after_ten_minutes_a_refusal_is_news_again(house: House, client: TokenClient) -> None:
    """Whatever it was then may be over."""
    house.sign_in(ANN)
    version = client.report_rejected(ANN, 1).version
    house.clock.advance(minutes=10)

    assert client.report_rejected(ANN, version).version == 3
    assert house.asked() == 2


def test_a_token_of_the_schedule_in_between_does_not_start_it_anew(house: House, client: TokenClient) -> None:
    """Ten minutes are ten minutes: the third token would be refused as well."""
    house.sign_in(ANN)
    client.report_rejected(ANN, 1)
    house.services.on_demand.refresh(account_id(ANN))

    with pytest.raises(TokenRefused):
        client.report_rejected(ANN, 3)
    assert house.asked() == 2


def test_a_refresh_that_failed_does_not_count(house: House, client: TokenClient) -> None:
    """It brought no token that could be refused; the back-off is what holds the next."""
    house.sign_in(ANN)
    house.emulator.add_fault(RawAnswer(b"", 503), times=1)
    for _ in range(2):
        with pytest.raises(BackingOff):
            client.report_rejected(ANN, 1)
    with pytest.raises(BackingOff) as raised:
        client.report_rejected(ANN, 1)
    assert house.asked() == 1
    assert client.get(ANN).version == 1, "to who has not seen it refused, it is a token that lives"

    house.clock.now += raised.value.retry_after
    assert client.report_rejected(ANN, 1).version == 2


def test_a_refresh_under_way_is_waited_for(house: House, client: TokenClient) -> None:
    """A token that lives would do for a reader, but not if it is the refused one."""
    house.sign_in(ANN)
    house.clock.advance(minutes=40)

    with ThreadPoolExecutor(1) as pool, house.in_flight(house.services.refresher.refresh_due):
        report = pool.submit(client.report_rejected, ANN, 1)

    assert report.result().version == 2
    assert house.asked() == 1


def test_while_postgres_is_away_nothing_is_asked(house: House, client: TokenClient, stores: Stack) -> None:
    """Whether it was refused before, only Postgres knows; a newer token in the cache is another matter."""
    house.sign_in(ANN, BOB)
    house.clock.advance(minutes=40)
    house.services.on_demand.refresh(account_id(BOB))
    stores.postgres.stop()

    with pytest.raises(Unavailable):
        client.report_rejected(ANN, 1)
    assert client.report_rejected(BOB, 1).version == 2
    assert client.get(ANN).version == 1
    assert house.asked() == 1


def test_an_account_in_trouble_says_what_it_is(house: House, client: TokenClient) -> None:
    """And its refused token is not handed out again in place of an answer."""
    house.sign_in(ANN, BOB, lifetime=HOUR)
    house.services.accounts.pause(ANN)
    house.query(
        "UPDATE mail_credentials SET status = 'reauth_required', failure_code = 'AADSTS50173',"
        " failure_count = 1 WHERE email = :email",
        email=BOB,
    )
    house.services.redis.flushall()

    with pytest.raises(AccountInactive):
        client.report_rejected(ANN, 2)
    with pytest.raises(NeedsUser):
        client.report_rejected(BOB, 1)
    with pytest.raises(Unknown):
        client.report_rejected("nobody@contoso.com", 1)
    assert house.asked() == 0
