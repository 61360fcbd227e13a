"""One batch of due accounts: which accounts are in it, and that no value of one account stops the others."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest
import stamina

from tests.constants import ANN, BOB, CAT, NOT_PERSISTED, PERSISTED
from tests.factories import make_refreshed
from tests.integration.earlier import unbind
from tests.integration.installation import Installation
from tests.waiting import wait_for
from worker.db import leases
from worker.devkit.stack import Stack
from worker.domain.account import Account, LeaseId, Status, account_id
from worker.domain.errors import StorageError
from worker.domain.outcome import Refreshed
from worker.domain.policy import RefreshPolicy
from worker.vault import Purpose


def test_a_due_account_is_refreshed_and_readable(installation: Installation) -> None:
    """From a stored refresh token to an access token that a consumer can use."""
    installation.sign_in(ANN, due=True)

    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}

    token = installation.services.tokens.get("Ann@contoso.com")
    assert token.version == 2
    assert token.expires_at > installation.clock()
    assert installation.requests == 1


def test_no_request_is_sent_if_no_account_is_due(installation: Installation) -> None:
    """The same holds without any account."""
    assert installation.refresh_due() == {"leased": 0}
    installation.sign_in(ANN)

    assert installation.refresh_due() == {"leased": 0}
    assert installation.services.refresher.batches_due(limit=5) == []


def test_a_batch_leases_the_longest_overdue_up_to_its_size(installation: Installation) -> None:
    """After an outage, the accounts whose tokens expired first are refreshed first."""
    for email in (CAT, ANN, BOB):
        installation.sign_in(email, due=True)
        installation.clock.advance(minutes=1)
    small = installation.another_process(batch_size=2)
    assert [len(small.refresher.batches_due(limit=most)) for most in (0, 1, 5)] == [0, 1, 2]

    assert small.refresher.refresh_due() == {"leased": 2, "refreshed": 2}

    versions = {account.email: account.version for account in installation.services.accounts.list()}
    assert versions == {CAT: 2, ANN: 2, BOB: 1}
    assert small.refresher.batches_due(limit=5) == ["default"]


@pytest.mark.parametrize(("batch_size", "in_backlog"), [(4, False), (3, True), (2, False)])
def test_accounts_are_spread_anew_if_more_are_due_than_fit_into_a_batch(
    installation: Installation, batch_size: int, *, in_backlog: bool
) -> None:
    """Otherwise imported accounts would all be due together again.

    A batch of one or two says nothing about the fleet.
    """
    installation.sign_in(ANN, BOB, CAT, "dan@contoso.com", due=True)

    assert installation.another_process(batch_size=batch_size).refresher.refresh_due()["refreshed"] == batch_size

    spread = [account for account in installation.services.accounts.list() if account.version > 1]
    assert len(spread) == batch_size
    for account in spread:
        assert account.due_at == RefreshPolicy().due_at(account.id, 2, _refreshed(account), in_backlog=in_backlog)


def _refreshed(account: Account) -> Refreshed:
    assert account.obtained_at
    assert account.expires_at
    return make_refreshed(obtained_at=account.obtained_at, expires_at=account.expires_at)


def test_a_batch_may_be_larger_than_the_number_of_threads(installation: Installation) -> None:
    """Each response is stored for its own account."""
    emails = [f"user{number:02}@contoso.com" for number in range(40)]
    installation.sign_in(*emails, due=True, strict=True)
    few = installation.another_process(connections=3)

    assert few.refresher.refresh_due() == {"leased": 40, "refreshed": 40}

    for email in emails:
        assert installation.stored_secret(Purpose.REFRESH_TOKEN, email) == installation.emulator.newest_refresh_token(
            email
        )


def test_an_account_that_cannot_be_opened_is_set_aside(installation: Installation) -> None:
    """Its ciphertext is unchanged, and the next batch does not lease it."""
    installation.sign_in(ANN, BOB, CAT, due=True)
    installation.query("UPDATE mail_credentials SET refresh_token = '\\xdead' WHERE email = :email", email=BOB)

    assert installation.refresh_due() == {"leased": 3, "refreshed": 2}

    row = installation.account(BOB)
    assert (row.status, row.refresh_token, row.due_at, row.lease_until) == (Status.UNREADABLE, b"\xde\xad", None, None)
    assert row.failure
    assert row.failure.kind == "unreadable"
    installation.clock.advance(days=30)
    assert installation.refresh_due() == {"leased": 2, "refreshed": 2}
    assert installation.services.events.latest(account_id(BOB)) == []


def test_ciphertexts_swapped_between_accounts_cannot_be_opened(installation: Installation) -> None:
    """A writer to the table must not be able to make one user's mail readable under another user's name."""
    installation.sign_in(ANN, BOB, due=True)
    installation.query("""
        UPDATE mail_credentials AS a SET refresh_token = b.refresh_token
        FROM mail_credentials AS b WHERE a.id <> b.id
    """)

    assert installation.refresh_due() == {"leased": 2}

    assert [row.status for row in installation.services.accounts.list()] == [Status.UNREADABLE] * 2
    assert installation.requests == 0


@pytest.mark.parametrize(
    ("column", "value", "kind", "code"),
    [
        ("scopes", "openid", "transient", "internal_error"),
        ("authority", "https://evil.example/contoso.com", "misconfigured", "authority_refused"),
    ],
)
def test_an_account_with_an_invalid_row_backs_off(
    installation: Installation, column: str, value: str, kind: str, code: str
) -> None:
    """An earlier version has stored the row, and no import would accept it now. The account waits like a failing one,
    and the others go on."""
    installation.sign_in(ANN, BOB, CAT, due=True)
    unbind(installation, BOB, change=f"{column} = '{value}'")

    assert installation.refresh_due() == {"leased": 3, "refreshed": 2, kind: 1}

    row = installation.account(BOB)
    assert row.failure
    assert (row.failure.code, row.status, row.lease_until) == (code, Status.ACTIVE, None)
    assert row.due_at
    assert row.due_at > installation.clock()
    assert installation.requests == 2


def test_a_result_that_postgres_rejects_affects_no_other_account(installation: Installation, unwanted: None) -> None:
    """Results are written together. One that makes the statement fail is written by itself and waits in the outbox."""
    others = [f"user{number}@contoso.com" for number in range(7)]
    installation.sign_in(BOB, *others, due=True, strict=True)

    assert _answered_together(installation, 8) == {"leased": 8, "refreshed": 8}

    versions = {account.email: account.version for account in installation.services.accounts.list()}
    assert versions == {BOB: 1} | dict.fromkeys(others, 2)
    assert installation.logged(NOT_PERSISTED) == [BOB]
    assert sorted(installation.logged(PERSISTED)) == others
    installation.clock.advance(hours=2)
    assert installation.refresh_due() == {"leased": 7, "refreshed": 7}
    assert installation.emulator.statistics().failures == 0

    _accept_again(installation)

    installation.refresh_due()
    assert installation.stored_secret(Purpose.REFRESH_TOKEN, BOB) == installation.emulator.newest_refresh_token(BOB)


def test_no_further_request_is_sent_once_a_result_could_not_be_stored(
    installation: Installation, stores: Stack, unwanted: None
) -> None:
    """Their tokens would be used for nothing, too. Accounts without a request so far are due again at once."""
    for email in (BOB, ANN, CAT):
        installation.sign_in(email, due=True)
        installation.clock.advance(minutes=1)
    single = installation.another_process(connections=1)

    with stamina.set_testing(True, attempts=1), installation.in_flight(single.refresher.refresh_due) as batch:
        stores.valkey.stop()
    with pytest.raises(StorageError):
        batch.result()

    assert installation.requests == 1
    _accept_again(installation)
    assert installation.refresh_due() == {"leased": 2, "refreshed": 2}
    assert {row.email: row.version for row in installation.services.accounts.list()} == {BOB: 1, ANN: 2, CAT: 2}


def test_a_result_that_cannot_be_stored_anywhere_affects_no_other_account(
    installation: Installation, stores: Stack, unwanted: None
) -> None:
    """This holds even while the outbox is unavailable, and the batch raises an error."""
    refused = [f"user{number}@fabrikam.com" for number in range(4)]
    others = [f"user{number}@contoso.com" for number in range(4)]
    installation.sign_in(*refused, *others, due=True, strict=True)

    with stamina.set_testing(True, attempts=1), pytest.raises(StorageError):
        _answered_together(installation, 8, meanwhile=stores.valkey.stop)

    versions = {account.email: account.version for account in installation.services.accounts.list()}
    assert versions == dict.fromkeys(refused, 1) | dict.fromkeys(others, 2)
    assert sorted(installation.logged(PERSISTED)) == others


def _answered_together(
    installation: Installation, answers: int, *, meanwhile: Callable[[], None] = lambda: None
) -> dict[str, int]:
    """Run a batch whose first result finds Postgres busy, so that the other results gather behind it."""
    with (
        ThreadPoolExecutor(1) as pool,
        installation.in_flight(installation.refresh_due, responses=answers) as batch,
    ):
        meanwhile()
        released = pool.submit(_let_gather, installation, installation.lock_accounts())
    released.result()
    return batch.result()


def _let_gather(installation: Installation, busy: psycopg.Connection) -> None:
    with closing(busy):
        wait_for(installation.blocked_statements, about="the first result to wait for the table")
        time.sleep(0.3)  # all responses were sent at the same moment


@pytest.fixture(name="unwanted")
def _unwanted(installation: Installation) -> Iterator[None]:
    """Postgres rejects every change of accounts at fabrikam.com, except their lease."""
    installation.query(
        "ALTER TABLE mail_credentials ADD CONSTRAINT unwanted CHECK (version = 1 OR email NOT LIKE '%@fabrikam.com')"
    )
    yield
    _accept_again(installation)


def _accept_again(installation: Installation) -> None:
    installation.query("ALTER TABLE mail_credentials DROP CONSTRAINT IF EXISTS unwanted")


def test_no_request_is_sent_shortly_before_the_lease_ends(installation: Installation) -> None:
    """Its lease might end before the response arrives, and another worker would send a second request."""
    installation.sign_in(ANN, BOB, due=True, strict=True)
    slow = installation.another_process(connections=1, lease=60.0)

    with installation.in_flight(slow.refresher.refresh_due) as batch:
        installation.clock.advance(seconds=21)

    assert batch.result() == {"leased": 2, "refreshed": 1}
    assert installation.requests == 1
    installation.clock.advance(seconds=38)
    assert slow.refresher.refresh_due() == {"leased": 0}
    installation.clock.advance(seconds=1)
    assert slow.refresher.refresh_due() == {"leased": 1, "refreshed": 1}


def test_the_accounts_of_a_dead_worker_are_due_again_after_the_lease(installation: Installation) -> None:
    """It has leased the account and never writes. The row becomes due again by itself."""
    installation.sign_in(ANN, due=True)
    with installation.services.database.begin() as connection:
        lease, now = timedelta(seconds=installation.settings.lease), installation.clock()
        assert leases.lease_due(connection, client="default", lease_id=LeaseId(uuid4()), limit=1, lease=lease, now=now)
    installation.clock.advance(seconds=149)
    assert installation.refresh_due() == {"leased": 0}
    installation.clock.advance(seconds=1)

    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}


def test_results_are_written_as_they_arrive(installation: Installation) -> None:
    """One account whose request hangs must not keep the other tokens of its batch out of Postgres."""
    installation.sign_in(ANN, BOB, CAT, due=True)

    with installation.in_flight(installation.refresh_due) as batch:
        wait_for(lambda: len(installation.logged(PERSISTED)) == 2, about="the two others to be written", seconds=14)
        versions = sorted(account.version for account in installation.services.accounts.list())

    assert versions == [1, 2, 2]
    assert batch.result() == {"leased": 3, "refreshed": 3}
