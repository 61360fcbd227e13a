"""Claims: who gets which account, and for how long."""

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


def emails(claims: list[Lease]) -> set[str]:
    return {claim.email for claim in claims}


def save_overdue(rows: Rows, *overdue: str) -> None:
    """Accounts, the first one due the longest."""
    rows.save(*(grant(email, due_at=NOW - (len(overdue) - at) * MINUTE) for at, email in enumerate(overdue)))


def test_the_longest_overdue_are_claimed_first_and_no_more_than_asked_for(rows: Rows) -> None:
    """After an outage those whose tokens expired first must not wait for the others."""
    save_overdue(rows, DAN, BOB, CAT, ANN)

    assert emails(rows.claim(limit=2)) == {DAN, BOB}
    assert emails(rows.claim(limit=2)) == {CAT, ANN}


def test_an_account_is_due_from_its_due_time_on(rows: Rows) -> None:
    """Not an instant before: the due time is the whole schedule."""
    rows.save(grant(ANN, due_at=NOW), grant(BOB, due_at=NOW + INSTANT))

    assert emails(rows.claim(now=NOW)) == {ANN}
    assert emails(rows.claim(now=NOW + INSTANT)) == {BOB}


def test_two_open_transactions_claim_disjoint_accounts_without_waiting(rows: Rows) -> None:
    """Any number of workers may claim at once: a rival's rows are skipped, not queued for."""
    save_overdue(rows, ANN, BOB, CAT, DAN)

    with rows.database.begin() as one, rows.database.begin() as other:
        other.execute(text("SET LOCAL lock_timeout = '1s'"))
        first, second = (
            leases.lease_due(connection, client="default", lease_id=new_lease(), limit=2, lease=LEASE, now=NOW)
            for connection in (one, other)
        )

    assert emails(first) == {ANN, BOB}
    assert emails(second) == {CAT, DAN}


def test_a_claim_is_a_lease(rows: Rows) -> None:
    """It dies with its holder: nobody sweeps up, the account is simply due again when the lease ends."""
    rows.save(grant())
    [held] = rows.claim()

    assert held.lease_until == NOW + LEASE
    assert rows.claim(now=NOW + LEASE - INSTANT) == []
    [taken_over] = rows.claim(now=NOW + LEASE)
    assert taken_over.lease_id != held.lease_id


def test_a_lease_that_has_ended_keeps_its_place(rows: Rows) -> None:
    """Its holder has died: the account has waited longest of all, and is first again."""
    save_overdue(rows, DAN, BOB)
    assert emails(rows.claim(limit=1)) == {DAN}

    assert emails(rows.claim(limit=1, now=NOW + LEASE)) == {DAN}


def test_a_claim_changes_no_index(rows: Rows) -> None:
    """There are three, and in a large table each would be another page for every account: see benchmarks.md."""
    save_overdue(rows, ANN, BOB, CAT)
    statistics = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relname = 'mail_credentials'"

    with rows.database.begin() as connection:
        leases.lease_due(connection, client="default", lease_id=new_lease(), limit=9, lease=LEASE, now=NOW)
        updated = tuple(connection.execute(text(statistics)).one())

    assert updated == (3, 3)


def test_a_lease_of_an_older_program_is_one(rows: Rows) -> None:
    """It has put its end into the due time, and been stopped; whoever comes after it waits for that."""
    rows.save(grant())
    rows.sql("UPDATE mail_credentials SET lease_id = gen_random_uuid(), refresh_due_at = :until", until=NOW + LEASE)

    assert rows.find().is_leased(NOW)
    assert rows.claim() == []
    assert rows.lease_one() is None
    assert emails(rows.claim(now=NOW + LEASE)) == {ANN}


def test_a_claim_carries_all_that_a_refresh_needs(rows: Rows) -> None:
    """No second look at the row: between the claim and the write no transaction is open."""
    sealed = grant()
    terms = replace(sealed.grant, client="eu", authority="https://login.example/contoso", scopes=("Mail", "Send"))
    rows.save(replace(sealed, grant=terms))
    blocked = failed(rows.claim(client="eu")[0], status=Status.BLOCKED, failure=FAILURE, strikes=2, struck_at=NOW)
    rows.persist(blocked)

    [claim] = rows.claim(client="eu", now=NOW + HOUR)

    assert asdict(claim) == asdict(
        Lease(
            account_id=account_id(ANN),
            email=ANN,
            client="eu",
            authority="https://login.example/contoso",
            scopes=("Mail", "Send"),
            refresh_token=sealed.refresh_token,
            version=1,
            lease_id=claim.lease_id,
            lease_until=NOW + HOUR + LEASE,
            status=Status.BLOCKED,
            failure=FAILURE,
            strikes=2,
            struck_at=NOW,
        )
    )


def test_a_claim_takes_accounts_of_its_app_registration_only(rows: Rows) -> None:
    """What one registration may not do at the moment must not keep the others from their work."""
    sealed = grant(BOB)
    rows.save(grant(), replace(sealed, grant=replace(sealed.grant, client="eu")))

    assert [claim.email for claim in rows.claim(client="eu")] == [BOB]
    assert [claim.email for claim in rows.claim()] == [ANN]


def test_one_account_is_claimed_before_it_is_due(rows: Rows) -> None:
    """A consumer whose token is stale does not wait for the schedule."""
    rows.save(grant(due_at=NOW + HOUR))

    claim = rows.lease_one()

    assert claim is not None
    assert claim.lease_until == NOW + LEASE
    assert rows.claim() == []


def test_one_account_is_refused_to_whoever_looked_too_early(rows: Rows) -> None:
    """Somebody has refreshed it since: what the caller wants is there already."""
    rows.save(grant())
    rows.save(grant())

    assert rows.lease_one(version=1) is None
    assert rows.lease_one(version=2) is not None


def test_one_account_is_refused_while_it_is_leased(rows: Rows) -> None:
    """Two questions with one refresh token at a time is what leases are there to prevent."""
    rows.save(grant())
    rows.claim()

    assert rows.lease_one(now=NOW + LEASE - INSTANT) is None
    assert rows.lease_one(now=NOW + LEASE) is not None


def test_of_two_who_want_one_account_at_the_same_moment_one_gets_it(rows: Rows) -> None:
    """The loser waits for the winner's commit, looks again, and sees the lease."""
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
def test_one_account_in_trouble_may_still_be_claimed(rows: Rows, status: Status) -> None:
    """An operator may ask again before tomorrow's look at it."""
    rows.save(grant())
    rows.set_status(status, due_at=NOW + HOUR)

    claim = rows.lease_one(version=2)

    assert claim is not None
    assert claim.status is status


@pytest.mark.parametrize("status", [Status.PAUSED, Status.DISCONNECTED, Status.UNREADABLE])
def test_an_account_set_aside_is_not_claimed(rows: Rows, status: Status) -> None:
    """Neither by the schedule nor by name."""
    rows.save(grant())
    rows.set_status(status)

    assert rows.claim(now=NOW + 365 * 24 * HOUR) == []
    assert rows.lease_one(version=2) is None


@pytest.mark.parametrize("column", ["use_oauth = false", "refresh_token = NULL"])
def test_an_account_that_cannot_be_refreshed_is_not_claimed(rows: Rows, column: str) -> None:
    """A password mailbox, or one without a refresh token: neither by the schedule nor by name."""
    rows.save(grant())
    rows.sql(f"UPDATE mail_credentials SET {column}, refresh_due_at = NULL")

    assert rows.claim(now=NOW + 365 * 24 * HOUR) == []
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
def test_postgres_refuses_a_row_that_no_claim_may_see(rows: Rows, change: str, rule: str) -> None:
    """The claim looks at the due time alone, so the table itself guarantees what that means, whoever writes to it."""
    rows.save(grant())

    with pytest.raises(StorageError, match=f"ck_mail_credentials_{rule}"):
        rows.sql(f"UPDATE mail_credentials SET {change}")


def test_due_accounts_are_counted_no_further_than_asked_for(rows: Rows) -> None:
    """Sweep wants to know how many batches to send, not how large a backlog of a million is."""
    rows.save(*(grant(email) for email in (ANN, BOB, CAT)), grant(DAN, due_at=NOW + INSTANT))

    with rows.database.begin() as connection:
        assert leases.count_due(connection, client="default", limit=2, now=NOW) == 2
        assert leases.count_due(connection, client="default", limit=10, now=NOW) == 3


def test_a_leased_account_does_not_count_as_due(rows: Rows) -> None:
    """Or every sweep would send batches for what is being worked on."""
    rows.save(grant())
    rows.claim()

    with rows.database.begin() as connection:
        assert leases.count_due(connection, client="default", limit=10, now=NOW) == 0


def test_an_unknown_account_is_not_claimed(rows: Rows) -> None:
    """It may have been deleted between look and claim."""
    stranger = AccountId(account_id("nobody@contoso.com"))

    with rows.database.begin() as connection:
        assert accounts.find(connection, stranger) is None
    assert rows.lease_one("nobody@contoso.com") is None


def wait_for_a_waiting_statement(rows: Rows) -> None:
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    wait_for(lambda: rows.sql(waiting), about="a statement that waits for the row")
