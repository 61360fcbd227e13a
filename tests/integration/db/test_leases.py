"""Leases: which worker gets which account, and for how long."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from tests.constants import ANN, BOB, CAT, DAN, HOUR, MINUTE
from tests.factories import NOW
from tests.integration.db.rows import FAILURE, LEASE, Rows, failed, grant, new_lease
from tests.waiting import wait_for
from worker.db import accounts, leases
from worker.domain.account import AccountId, Lease, Status, account_id
from worker.domain.errors import StorageError

INSTANT = timedelta(microseconds=1)


def emails(held: list[Lease]) -> set[str]:
    return {lease.email for lease in held}


def save_overdue(rows: Rows, *overdue: str) -> None:
    """Save accounts of which the first has been due the longest."""
    rows.save(*(grant(email, due_at=NOW - (len(overdue) - at) * MINUTE) for at, email in enumerate(overdue)))


def test_the_longest_overdue_are_leased_first_up_to_the_limit(rows: Rows) -> None:
    """After an outage, the accounts whose tokens expired first are refreshed first."""
    save_overdue(rows, DAN, BOB, CAT, ANN)

    assert emails(rows.lease_due(limit=2)) == {DAN, BOB}
    assert emails(rows.lease_due(limit=2)) == {CAT, ANN}


def test_an_account_is_due_from_its_due_time_on(rows: Rows) -> None:
    """Not an instant before, because the due time is the whole schedule."""
    rows.save(grant(ANN, due_at=NOW), grant(BOB, due_at=NOW + INSTANT))

    assert emails(rows.lease_due(now=NOW)) == {ANN}
    assert emails(rows.lease_due(now=NOW + INSTANT)) == {BOB}


def test_two_open_transactions_lease_different_accounts_without_waiting(rows: Rows) -> None:
    """Any number of workers may lease at once. Rows that another worker has locked are skipped, not waited for."""
    save_overdue(rows, ANN, BOB, CAT, DAN)

    with rows.database.begin() as one, rows.database.begin() as other:
        other.execute(text("SET LOCAL lock_timeout = '1s'"))
        first, second = (
            leases.lease_due(connection, client="default", lease_id=new_lease(), limit=2, lease=LEASE, now=NOW)
            for connection in (one, other)
        )

    assert emails(first) == {ANN, BOB}
    assert emails(second) == {CAT, DAN}


def test_a_lease_ends_by_itself(rows: Rows) -> None:
    """If its holder dies, the account is due again when the lease ends. No cleanup is needed."""
    rows.save(grant())
    [held] = rows.lease_due()

    assert held.lease_until == NOW + LEASE
    assert rows.lease_due(now=NOW + LEASE - INSTANT) == []
    [taken_over] = rows.lease_due(now=NOW + LEASE)
    assert taken_over.lease_id != held.lease_id


def test_a_lease_that_has_ended_keeps_its_place(rows: Rows) -> None:
    """The holder has died. The account has waited longest, so it comes first again."""
    save_overdue(rows, DAN, BOB)
    assert emails(rows.lease_due(limit=1)) == {DAN}

    assert emails(rows.lease_due(limit=1, now=NOW + LEASE)) == {DAN}


def test_a_lease_changes_no_index(rows: Rows) -> None:
    """There are three indexes. In a large table each would cost another page per account, see benchmarks.md."""
    save_overdue(rows, ANN, BOB, CAT)
    statistics = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relname = 'mail_credentials'"

    with rows.database.begin() as connection:
        leases.lease_due(connection, client="default", lease_id=new_lease(), limit=9, lease=LEASE, now=NOW)
        updated = tuple(connection.execute(text(statistics)).one())

    assert updated == (3, 3)


def test_a_lease_of_an_older_version_is_respected(rows: Rows) -> None:
    """The older version wrote the end of its lease into the due time and was then stopped.

    Newer workers wait until that time.
    """
    rows.save(grant())
    rows.sql("UPDATE mail_credentials SET lease_id = gen_random_uuid(), refresh_due_at = :until", until=NOW + LEASE)

    assert rows.find().is_leased(NOW)
    assert rows.lease_due() == []
    assert rows.lease_one() is None
    assert emails(rows.lease_due(now=NOW + LEASE)) == {ANN}


def test_a_lease_carries_all_that_a_refresh_needs(rows: Rows) -> None:
    """No second read of the row is needed, and no transaction is open between the lease and the write."""
    sealed = grant()
    terms = replace(sealed.grant, client="eu", authority="https://login.example/contoso", scopes=("Mail", "Send"))
    rows.save(replace(sealed, grant=terms))
    blocked = failed(rows.lease_due(client="eu")[0], status=Status.BLOCKED, failure=FAILURE, strikes=2, struck_at=NOW)
    rows.persist(blocked)

    [lease] = rows.lease_due(client="eu", now=NOW + HOUR)

    assert sealed.refresh_token
    assert asdict(lease) == asdict(
        Lease(
            account_id=account_id(ANN),
            email=ANN,
            client="eu",
            authority="https://login.example/contoso",
            scopes=("Mail", "Send"),
            refresh_token=sealed.refresh_token,
            version=1,
            lease_id=lease.lease_id,
            lease_until=NOW + HOUR + LEASE,
            status=Status.BLOCKED,
            failure=FAILURE,
            strikes=2,
            struck_at=NOW,
        )
    )


def test_only_accounts_of_the_given_app_registration_are_leased(rows: Rows) -> None:
    """If one registration may send no requests, the accounts of the others are still refreshed."""
    sealed = grant(BOB)
    rows.save(grant(), replace(sealed, grant=replace(sealed.grant, client="eu")))

    assert [lease.email for lease in rows.lease_due(client="eu")] == [BOB]
    assert [lease.email for lease in rows.lease_due()] == [ANN]


def test_one_account_can_be_leased_before_it_is_due(rows: Rows) -> None:
    """A consumer with a stale token does not wait for the schedule."""
    rows.save(grant(due_at=NOW + HOUR))

    lease = rows.lease_one()

    assert lease is not None
    assert lease.lease_until == NOW + LEASE
    assert rows.lease_due() == []


def test_one_account_is_not_leased_to_a_caller_that_saw_an_older_version(rows: Rows) -> None:
    """Another process has refreshed the account since, so the token that the caller needs is stored already."""
    rows.save(grant())
    rows.save(grant())

    assert rows.lease_one(version=1) is None
    assert rows.lease_one(version=2) is not None


def test_one_account_is_not_leased_twice(rows: Rows) -> None:
    """A lease prevents two requests with one refresh token at a time."""
    rows.save(grant())
    rows.lease_due()

    assert rows.lease_one(now=NOW + LEASE - INSTANT) is None
    assert rows.lease_one(now=NOW + LEASE) is not None


def test_of_two_concurrent_callers_one_gets_the_lease(rows: Rows) -> None:
    """The second caller waits for the commit of the first, reads the row again, and sees the lease."""
    rows.save(grant())

    with ThreadPoolExecutor(1) as pool:
        with rows.database.begin() as connection:
            won = leases.lease_one(
                connection, account_id(ANN), version=1, due_at=NOW, lease_id=new_lease(), lease=LEASE, now=NOW
            )
            late = pool.submit(rows.lease_one)
            wait_for_a_waiting_statement(rows)
        assert late.result() is None
    assert won is not None


@pytest.mark.parametrize("status", [Status.ACTIVE, Status.REAUTH_REQUIRED, Status.BLOCKED])
def test_one_failing_account_can_still_be_leased(rows: Rows, status: Status) -> None:
    """An operator may request a refresh before the daily one."""
    rows.save(grant())
    rows.set_status(status, due_at=NOW + HOUR)

    lease = rows.lease_one(version=2)

    assert lease is not None
    assert lease.status is status


@pytest.mark.parametrize("status", [Status.PAUSED, Status.DISCONNECTED, Status.UNREADABLE])
def test_an_account_set_aside_is_not_leased(rows: Rows, status: Status) -> None:
    """It is leased neither when due nor by name."""
    rows.save(grant())
    rows.set_status(status)

    assert rows.lease_due(now=NOW + 365 * 24 * HOUR) == []
    assert rows.lease_one(version=2) is None


@pytest.mark.parametrize("column", ["use_oauth = false", "refresh_token = NULL"])
def test_an_account_that_cannot_be_refreshed_is_not_leased(rows: Rows, column: str) -> None:
    """A mailbox with a password, or without a refresh token, is leased neither when due nor by name."""
    rows.save(grant())
    rows.sql(f"UPDATE mail_credentials SET {column}, refresh_due_at = NULL")

    assert rows.lease_due(now=NOW + 365 * 24 * HOUR) == []
    assert rows.lease_one() is None


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("use_oauth = false", "only_oauth_is_due"),
        ("refresh_token = NULL", "only_refresh_token_is_due"),
        *((f"status = '{status}'", "only_refreshable_is_due") for status in ("paused", "disconnected", "unreadable")),
        ("status = 'asleep', refresh_due_at = NULL", "status_is_known"),
        ("email = 'Ann@contoso.com'", "email_is_lower"),
    ],
)
def test_postgres_rejects_a_due_row_that_must_not_be_leased(rows: Rows, change: str, rule: str) -> None:
    """The statement checks only the due time, so constraints of the table guarantee its meaning for every writer."""
    rows.save(grant())

    with pytest.raises(StorageError, match=f"ck_mail_credentials_{rule}"):
        rows.sql(f"UPDATE mail_credentials SET {change}")


def test_due_accounts_are_counted_up_to_the_limit(rows: Rows) -> None:
    """The sweep needs the number of batches to send, not the size of a backlog of a million."""
    rows.save(*(grant(email) for email in (ANN, BOB, CAT)), grant(DAN, due_at=NOW + INSTANT))

    with rows.database.begin() as connection:
        assert leases.count_due(connection, client="default", limit=2, now=NOW) == 2
        assert leases.count_due(connection, client="default", limit=10, now=NOW) == 3


def test_a_leased_account_does_not_count_as_due(rows: Rows) -> None:
    """Otherwise every sweep would send batches for accounts that are being refreshed."""
    rows.save(grant())
    rows.lease_due()

    with rows.database.begin() as connection:
        assert leases.count_due(connection, client="default", limit=10, now=NOW) == 0


def test_an_unknown_account_is_not_leased(rows: Rows) -> None:
    """It may have been deleted since the caller read it."""
    stranger = AccountId(account_id("nobody@contoso.com"))

    with rows.database.begin() as connection:
        assert accounts.find(connection, stranger) is None
    assert rows.lease_one("nobody@contoso.com") is None


def wait_for_a_waiting_statement(rows: Rows) -> None:
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    wait_for(lambda: rows.sql(waiting), about="a statement that waits for the row")
