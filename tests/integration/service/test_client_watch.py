"""Who listens for accounts that need somebody hears of each once, and misses none."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta

import pytest

from tests.constants import ANN, BOB, CAT
from tests.integration.installation import Installation
from tests.waiting import wait_for
from worker.client import AttentionNeeded, TokenClient
from worker.devkit.emulator import oauth_error
from worker.devkit.stack import Stack
from worker.domain.account import Status
from worker.service.accounts.watch import AccountWatch

_OFTEN = 0.02  # seconds


def _lose(installation: Installation, email: str, code: str = "AADSTS50173", claims: str | None = None) -> None:
    """The account's grant comes to its end."""
    installation.emulator.add_fault(oauth_error(code, claims=claims), email, times=1)
    installation.query(
        "UPDATE mail_credentials SET refresh_due_at = :now WHERE email = :email", now=installation.clock(), email=email
    )
    installation.refresh_due()


def test_accounts_in_need_come_first_and_later_ones_as_it_happens(
    installation: Installation, client: TokenClient
) -> None:
    """With all that a message to the user needs."""
    installation.sign_in(ANN, BOB, CAT, due=True)
    _lose(installation, ANN, claims='{"access_token":{}}')
    events = client.watch(every=_OFTEN)

    first = next(events)
    installation.clock.advance(minutes=1)
    _lose(installation, BOB, "AADSTS90094")

    assert first == AttentionNeeded(
        email=ANN,
        status=Status.REAUTH_REQUIRED,
        code="needs_user",
        reason="AADSTS50173",
        claims='{"access_token":{}}',
        advice=first.advice,
        since=installation.clock() - timedelta(minutes=1),
    )
    assert "sign in again" in first.advice
    second = next(events)
    assert (second.email, second.status, second.code) == (BOB, Status.BLOCKED, "blocked_by_admin")
    assert "administrator" in second.advice


def test_a_tenant_that_is_gone_is_reported_after_a_day(installation: Installation) -> None:
    """Until then it may come back by itself; when it does, its mailbox is read again."""
    installation.sign_in(ANN, due=True)
    watch = AccountWatch(installation.services.database, None)
    _lose(installation, ANN, "AADSTS90002")
    assert watch.poll() == []

    installation.clock.advance(days=1)
    _lose(installation, ANN, "AADSTS90002")

    [event] = watch.poll()
    assert (event.email, event.status, event.reason) == (ANN, Status.BLOCKED, "AADSTS90002")
    assert "does not know your organization" in event.advice
    installation.clock.advance(days=1.1)
    assert installation.refresh_due() == {"claimed": 1, "refreshed": 1}


def test_each_account_is_reported_once_until_it_happens_again(installation: Installation) -> None:
    """A daily re-check that fails again is no news; a second death after a sign-in is."""
    installation.sign_in(ANN, due=True)
    _lose(installation, ANN)
    watch = AccountWatch(installation.services.database, None)
    assert [event.email for event in watch.poll()] == [ANN]

    installation.clock.advance(days=1.2)
    _lose(installation, ANN)
    assert watch.poll() == []

    installation.sign_in(ANN)
    assert watch.poll() == []
    installation.clock.advance(seconds=1)
    _lose(installation, ANN)
    assert [event.email for event in watch.poll()] == [ANN]
    assert watch.poll() == []


def test_a_listener_that_was_away_goes_on_from_where_it_was(installation: Installation) -> None:
    """It keeps the time of the last event; the latest may come again, an older one does not."""
    installation.sign_in(ANN, BOB, CAT, due=True)
    _lose(installation, ANN)
    installation.clock.advance(hours=1)
    _lose(installation, BOB)
    last = installation.clock()
    installation.clock.advance(hours=1)
    _lose(installation, CAT)

    assert [event.email for event in AccountWatch(installation.services.database, last).poll()] == [BOB, CAT]


def test_a_change_that_is_committed_late_is_not_missed(installation: Installation) -> None:
    """Its time is that of the decision, and others may have been told of later ones before."""
    installation.sign_in(ANN, BOB, due=True)
    watch = AccountWatch(installation.services.database, None)
    installation.clock.advance(minutes=2)
    _lose(installation, BOB)
    assert [event.email for event in watch.poll()] == [BOB]

    installation.clock.advance(minutes=-2)
    _lose(installation, ANN)

    assert [event.email for event in watch.poll()] == [ANN]
    assert watch.poll() == []


def test_an_account_that_died_under_an_older_version_is_reported_too(installation: Installation) -> None:
    """The column came with a migration; old workers do not fill it."""
    installation.sign_in(ANN, BOB, due=True)
    _lose(installation, BOB)
    watch = AccountWatch(installation.services.database, installation.clock())
    watch.poll()
    installation.query("UPDATE mail_credentials SET status = 'blocked' WHERE email = :email", email=ANN)

    assert [event.email for event in watch.poll()] == [ANN]
    assert watch.poll() == []


def test_an_account_whose_key_is_lost_needs_an_operator(installation: Installation) -> None:
    """No user can help, but somebody must."""
    installation.sign_in(ANN, due=True)
    installation.query("UPDATE mail_credentials SET refresh_token = '\\x0102'")
    installation.refresh_due()

    [event] = AccountWatch(installation.services.database, None).poll()

    assert (event.status, event.code) == (Status.UNREADABLE, "inactive")


def test_a_listener_outlives_an_outage_of_postgres(
    installation: Installation, client: TokenClient, stores: Stack
) -> None:
    """It says that it cannot look, and goes on when it can."""
    installation.sign_in(ANN, BOB, due=True)
    _lose(installation, ANN)
    events = client.watch(every=_OFTEN)
    next(events)
    _lose(installation, BOB)
    stores.postgres.stop()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, events)
        wait_for(
            lambda: any("cannot be looked up" in line["event"] for line in installation.logs), about="a word of it"
        )
        stores.postgres.start()
        assert waiting.result(30).email == BOB


def test_a_listener_ends_with_its_client(installation: Installation) -> None:
    """At once, however long it would have slept."""
    client = TokenClient(installation.settings, utcnow=installation.clock)
    events: Iterator[AttentionNeeded] = client.watch(every=3600)

    with ThreadPoolExecutor(1) as pool, closing(client):
        waiting = pool.submit(list, events)
        with pytest.raises(TimeoutError):
            waiting.result(0.5)
        client.close()
        assert waiting.result(30) == []
