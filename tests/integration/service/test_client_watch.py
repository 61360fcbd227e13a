"""Who listens for accounts that need somebody hears of each once, and misses none."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta

import pytest

from tests.e2e.installation import wait_for
from tests.integration.service.house import ANN, BOB, CAT, House
from worker.client import AttentionNeeded, TokenClient
from worker.devkit.emulator import oauth_error
from worker.devkit.stack import Stack
from worker.domain.account import Status

_OFTEN = 0.02  # seconds


def _lose(house: House, email: str, code: str = "AADSTS50173", claims: str | None = None) -> None:
    """The account's grant comes to its end."""
    house.emulator.add_fault(oauth_error(code, claims=claims), email, times=1)
    house.query(
        "UPDATE mail_credentials SET refresh_due_at = :now WHERE email = :email", now=house.clock(), email=email
    )
    house.services.refresher.refresh_due()


def test_those_in_need_come_first_and_then_whoever_follows(house: House, client: TokenClient) -> None:
    """With all that a message to the user needs."""
    house.enrol(ANN, BOB, CAT)
    _lose(house, ANN, claims='{"access_token":{}}')
    events = client.watch(every=_OFTEN)

    first = next(events)
    house.clock.advance(minutes=1)
    _lose(house, BOB, "AADSTS90094")

    assert first == AttentionNeeded(
        email=ANN,
        status=Status.REAUTH_REQUIRED,
        code="needs_user",
        reason="AADSTS50173",
        claims='{"access_token":{}}',
        advice=first.advice,
        since=house.clock() - timedelta(minutes=1),
    )
    assert "sign in again" in first.advice
    second = next(events)
    assert (second.email, second.status, second.code) == (BOB, Status.BLOCKED, "blocked_by_admin")
    assert "administrator" in second.advice


def test_a_tenant_that_is_gone_is_told_after_a_day(house: House) -> None:
    """Until then it may come back by itself; when it does, its mailbox is read again."""
    house.enrol(ANN)
    watch = house.services.attention.watch(None)
    _lose(house, ANN, "AADSTS90002")
    assert watch.poll() == []

    house.clock.advance(days=1)
    _lose(house, ANN, "AADSTS90002")

    [event] = watch.poll()
    assert (event.email, event.status, event.reason) == (ANN, Status.BLOCKED, "AADSTS90002")
    assert "does not know your organization" in event.advice
    house.clock.advance(days=1.1)
    assert house.services.refresher.refresh_due() == {"claimed": 1, "refreshed": 1}


def test_each_is_told_once_until_it_happens_again(house: House) -> None:
    """A daily re-check that fails again is no news; a second death after a sign-in is."""
    house.enrol(ANN)
    _lose(house, ANN)
    watch = house.services.attention.watch(None)
    assert [event.email for event in watch.poll()] == [ANN]

    house.clock.advance(days=1.2)
    _lose(house, ANN)
    assert watch.poll() == []

    house.sign_in(ANN)
    assert watch.poll() == []
    house.clock.advance(seconds=1)
    _lose(house, ANN)
    assert [event.email for event in watch.poll()] == [ANN]
    assert watch.poll() == []


def test_a_listener_that_was_away_goes_on_from_where_it_was(house: House) -> None:
    """It keeps the time of the last event; the latest may come again, an older one does not."""
    house.enrol(ANN, BOB, CAT)
    _lose(house, ANN)
    house.clock.advance(hours=1)
    _lose(house, BOB)
    last = house.clock()
    house.clock.advance(hours=1)
    _lose(house, CAT)

    assert [event.email for event in house.services.attention.watch(last).poll()] == [BOB, CAT]


def test_a_change_that_is_committed_late_is_not_missed(house: House) -> None:
    """Its time is that of the decision, and others may have been told of later ones before."""
    house.enrol(ANN, BOB)
    watch = house.services.attention.watch(None)
    house.clock.advance(minutes=2)
    _lose(house, BOB)
    assert [event.email for event in watch.poll()] == [BOB]

    house.clock.advance(minutes=-2)
    _lose(house, ANN)

    assert [event.email for event in watch.poll()] == [ANN]
    assert watch.poll() == []


def test_an_account_that_died_under_an_older_program_is_told_too(house: House) -> None:
    """The column came with a migration; old workers do not fill it."""
    house.enrol(ANN, BOB)
    _lose(house, BOB)
    watch = house.services.attention.watch(house.clock())
    watch.poll()
    house.query("UPDATE mail_credentials SET status = 'blocked' WHERE email = :email", email=ANN)

    assert [event.email for event in watch.poll()] == [ANN]
    assert watch.poll() == []


def test_an_account_whose_key_is_lost_needs_an_operator(house: House) -> None:
    """No user can help, but somebody must."""
    house.enrol(ANN)
    house.query("UPDATE mail_credentials SET refresh_token = '\\x0102'")
    house.services.refresher.refresh_due()

    [event] = house.services.attention.watch(None).poll()

    assert (event.status, event.code) == (Status.UNREADABLE, "inactive")


def test_a_listener_outlives_an_outage_of_postgres(house: House, client: TokenClient, stores: Stack) -> None:
    """It says that it cannot look, and goes on when it can."""
    house.enrol(ANN, BOB)
    _lose(house, ANN)
    events = client.watch(every=_OFTEN)
    next(events)
    _lose(house, BOB)
    stores.postgres.stop()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, events)
        wait_for(lambda: any("cannot be looked up" in line["event"] for line in house.logs), about="a word of it")
        stores.postgres.start()
        assert waiting.result(30).email == BOB


def test_a_listener_ends_with_its_client(house: House) -> None:
    """At once, however long it would have slept."""
    client = TokenClient(house.settings, utcnow=house.clock)
    events: Iterator[AttentionNeeded] = client.watch(every=3600)

    with ThreadPoolExecutor(1) as pool, closing(client):
        waiting = pool.submit(list, events)
        with pytest.raises(TimeoutError):
            waiting.result(0.5)
        client.close()
        assert waiting.result(30) == []
