"""A listener for accounts that need attention receives each event once, and misses none."""

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
    """Microsoft ends the account's grant."""
    installation.emulator.add_fault(oauth_error(code, claims=claims), email, times=1)
    installation.query(
        "UPDATE mail_credentials SET refresh_due_at = :now WHERE email = :email", now=installation.clock(), email=email
    )
    installation.refresh_due()


def test_current_events_come_first_and_later_ones_as_they_happen(
    installation: Installation, client: TokenClient
) -> None:
    """The events have all that a message to the user needs."""
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
    """Until then the tenant may come back by itself. When it does, its mailboxes are read again."""
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
    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}


def test_each_account_is_reported_once_per_event(installation: Installation) -> None:
    """A daily refresh that fails again is no event, but a second end of the grant after a sign-in is one."""
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


def test_a_listener_can_resume_after_its_last_event(installation: Installation) -> None:
    """It keeps the time of the last event. The latest event may be delivered again, an older one is not."""
    installation.sign_in(ANN, BOB, CAT, due=True)
    _lose(installation, ANN)
    installation.clock.advance(hours=1)
    _lose(installation, BOB)
    last = installation.clock()
    installation.clock.advance(hours=1)
    _lose(installation, CAT)

    assert [event.email for event in AccountWatch(installation.services.database, last).poll()] == [BOB, CAT]


def test_a_change_that_is_committed_late_is_not_missed(installation: Installation) -> None:
    """The event's time is that of the decision, and listeners may have received later events before."""
    installation.sign_in(ANN, BOB, due=True)
    watch = AccountWatch(installation.services.database, None)
    installation.clock.advance(minutes=2)
    _lose(installation, BOB)
    assert [event.email for event in watch.poll()] == [BOB]

    installation.clock.advance(minutes=-2)
    _lose(installation, ANN)

    assert [event.email for event in watch.poll()] == [ANN]
    assert watch.poll() == []


def test_an_account_that_an_older_version_has_marked_is_reported(installation: Installation) -> None:
    """A migration has added the column, and workers of the older version do not fill it."""
    installation.sign_in(ANN, BOB, due=True)
    _lose(installation, BOB)
    watch = AccountWatch(installation.services.database, installation.clock())
    watch.poll()
    installation.query("UPDATE mail_credentials SET status = 'blocked' WHERE email = :email", email=ANN)

    assert [event.email for event in watch.poll()] == [ANN]
    assert watch.poll() == []


def test_an_account_with_a_lost_key_needs_an_operator(installation: Installation) -> None:
    """No user can help, but an operator must."""
    installation.sign_in(ANN, due=True)
    installation.query("UPDATE mail_credentials SET refresh_token = '\\x0102'")
    installation.refresh_due()

    [event] = AccountWatch(installation.services.database, None).poll()

    assert (event.status, event.code) == (Status.UNREADABLE, "inactive")


def test_a_listener_outlives_an_outage_of_postgres(
    installation: Installation, client: TokenClient, stores: Stack
) -> None:
    """It reports that it cannot read, and goes on when it can."""
    installation.sign_in(ANN, BOB, due=True)
    _lose(installation, ANN)
    events = client.watch(every=_OFTEN)
    next(events)
    _lose(installation, BOB)
    stores.postgres.stop()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, events)
        wait_for(
            lambda: any("cannot be looked up" in line["event"] for line in installation.logs), about="the log line"
        )
        stores.postgres.start()
        assert waiting.result(30).email == BOB


def test_a_listener_ends_with_its_client(installation: Installation) -> None:
    """It ends at once, even while it sleeps."""
    client = TokenClient(installation.settings, utcnow=installation.clock)
    events: Iterator[AttentionNeeded] = client.watch(every=3600)

    with ThreadPoolExecutor(1) as pool, closing(client):
        waiting = pool.submit(list, events)
        with pytest.raises(TimeoutError):
            waiting.result(0.5)
        client.close()
        assert waiting.result(30) == []
