"""How a sign-in, an operator or a lost key changes an account, and what the listing and the summary show of it."""

import pytest

from tests.constants import ANN, BOB, CAT, DAN, HOUR
from tests.factories import NOW
from tests.integration.db.rows import FAILURE, LEASE, Overtake, Rows, failed, grant, refreshed
from worker.db import figures, leases
from worker.db.key_rotation import SEALED_COLUMNS
from worker.domain.account import Account, Lease, MailServers, Status, account_id
from worker.domain.token import Sealed

LATER = NOW + HOUR


def test_a_new_account_is_active_and_due_when_its_grant_says(rows: Rows) -> None:
    """It uses Microsoft's own mail servers, and the age of its refresh token counts from now."""
    assert rows.save(grant(due_at=LATER)) == {account_id(ANN): 1}

    assert rows.find() == Account(
        id=account_id(ANN),
        email=ANN,
        client="default",
        authority=None,
        scopes=(),
        use_oauth=True,
        mail=MailServers(),
        access_token=Sealed(b"access 1"),
        refresh_token=Sealed(b"refresh 1"),
        obtained_at=NOW,
        expires_at=LATER,
        refresh_token_issued_at=NOW,
        version=1,
        status=Status.ACTIVE,
        due_at=LATER,
        lease_until=None,
        failure=None,
        claims=None,
        last_refreshed_at=None,
        signed_in_at=NOW,
        grant_lifetime=None,
    )


def test_a_new_sign_in_clears_failures_and_leases(rows: Rows) -> None:
    """No token, failure or lease of the old grant is left, nor the time when it left OAuth. Only the version grows."""
    rows.save(grant())
    fresh = rows.row()
    rows.persist(refreshed(rows.lease_due()[0], due_at=NOW))
    rows.persist(failed(rows.lease_due()[0], status=Status.REAUTH_REQUIRED, claims="{}", due_at=NOW))
    rows.lease_due()
    rows.leave_oauth()

    assert rows.save(grant(), now=LATER) == {account_id(ANN): 3}

    moved = {
        "version": 3,
        "last_refreshed_at": LATER,
        "updated_at": LATER,
        "signed_in_at": LATER,
        "status_changed_at": LATER,
    }
    assert rows.row() == fresh | moved


def test_a_sign_in_without_an_access_token_drops_the_one_of_the_old_grant(rows: Rows) -> None:
    """The new sign-in may be another user's consent, so the old access token must not be served for it."""
    rows.save(grant())

    rows.save(grant(access_token=None, obtained_at=None))

    account = rows.find()
    assert (account.access_token, account.obtained_at, account.expires_at) == (None, None, None)


def test_a_grant_brings_all_its_mail_servers(rows: Rows) -> None:
    """Its tokens are sealed for them, so none of the stored ones may stay."""
    servers = MailServers(
        imap_host="imap.example",
        imap_port=1993,
        smtp_host="smtp.example",
        smtp_port=1587,
        pop_host="pop.example",
        pop_port=1995,
    )
    rows.save(grant(mail=servers))
    saved = rows.find().mail
    rows.save(grant(mail=MailServers()))

    assert saved == servers
    assert rows.find().mail == MailServers()


def test_grants_are_saved_together_each_account_with_its_own(rows: Rows) -> None:
    """An import mixes new and existing accounts in one statement."""
    rows.save(grant(ANN))

    versions = rows.save(*(grant(email, refresh_token=Sealed(email.encode())) for email in (ANN, BOB)))

    assert versions == {account_id(ANN): 2, account_id(BOB): 1}
    assert [rows.row(email)["refresh_token"] for email in (ANN, BOB)] == [ANN.encode(), BOB.encode()]


def test_an_operators_command_clears_failures_and_ends_the_lease(rows: Rows) -> None:
    """A resumed account starts without failures, and its tokens are unchanged."""
    rows.save(grant())
    fresh = rows.row()
    rows.persist(failed(rows.lease_due()[0], status=Status.REAUTH_REQUIRED, claims="{}", due_at=NOW))
    rows.lease_due()

    assert rows.set_status(Status.ACTIVE, due_at=LATER) == [account_id(ANN)]

    assert rows.row() == fresh | {"version": 2, "refresh_due_at": LATER, "status_changed_at": NOW}


def test_the_status_of_an_unknown_account_cannot_be_set(rows: Rows) -> None:
    """It is missing among those that were changed."""
    assert rows.set_status(Status.PAUSED) == []


def test_a_disconnect_erases_every_sealed_column(rows: Rows, lease: Lease) -> None:
    """No secret of a disconnected account may remain."""
    rows.persist(refreshed(lease))
    assert all(rows.row()[column] for column in SEALED_COLUMNS)

    rows.disconnect()

    assert [rows.row()[column] for column in SEALED_COLUMNS] == [None] * len(SEALED_COLUMNS)
    assert rows.find().expires_at is None


def test_a_disconnected_account_comes_back_with_a_higher_version(rows: Rows) -> None:
    """If the row were deleted and created again, a late writer's old copy could pass for the newer one."""
    rows.save(grant())
    rows.disconnect()

    assert rows.save(grant()) == {account_id(ANN): 3}
    assert len(rows.lease_due()) == 1


def test_an_account_set_aside_keeps_its_ciphertext(rows: Rows, lease: Lease) -> None:
    """The key may come back, and then a resume is enough."""
    tokens = ("access_token", "refresh_token", "token_expiry", "version")
    before = rows.row()

    with rows.database.begin() as connection:
        assert leases.set_aside(connection, lease, code="unreadable", now=NOW)

    after, account = rows.row(), rows.find()
    assert {name: after[name] for name in tokens} == {name: before[name] for name in tokens}
    assert (account.status, account.due_at, account.lease_until) == (Status.UNREADABLE, None, None)
    assert account.failure is not None
    assert (account.failure.kind, account.failure.since) == ("unreadable", NOW)


@pytest.mark.parametrize("overtake", [Rows.take_over, Rows.sign_in, Rows.pause])
def test_only_the_holder_of_the_lease_may_set_an_account_aside(rows: Rows, lease: Lease, overtake: Overtake) -> None:
    """A worker that lacks the newest key must not set aside an account that other workers can read."""
    overtake(rows)
    before = rows.row()

    with rows.database.begin() as connection:
        assert not leases.set_aside(connection, lease, code="unreadable", now=NOW)

    assert rows.row() == before


def test_the_summary_counts_accounts_by_state(rows: Rows) -> None:
    """One is leased, one overdue and expired, one failing and one paused.

    Each is counted where an operator looks for it.
    """
    rows.save(*map(grant, (ANN, CAT, DAN)))
    held = {lease.email: lease for lease in rows.lease_due()}
    rows.persist(refreshed(held[CAT], due_at=NOW + 9 * HOUR, failure=FAILURE))
    rows.set_status(Status.PAUSED, email=DAN)
    rows.save(grant(BOB, due_at=NOW - HOUR, expires_at=NOW))

    with rows.database.begin() as connection:
        summary = figures.summary(connection, clients=["default"], now=NOW)

    assert summary == {
        "accounts": {"active": 3, "paused": 1},
        "due": 1,
        "in_flight": 1,
        "expired": 1,
        "failing": 1,
        "unconfigured": 0,
        "oldest_due_at": NOW - HOUR,
        "last_refreshed_at": LATER,
    }


def test_an_account_whose_lease_has_run_out_is_due_and_not_in_flight(rows: Rows, lease: Lease) -> None:
    """Its worker is dead, so the summary must not count it as in flight."""
    with rows.database.begin() as connection:
        summary = figures.summary(connection, clients=["default"], now=NOW + LEASE)

    assert (summary["due"], summary["in_flight"], summary["oldest_due_at"]) == (1, 0, NOW)
