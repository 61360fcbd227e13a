"""The writes of the outbox after an outage of Postgres use the same compare-and-swap, without a lease."""

from tests.constants import ANN, BOB, CAT, HOUR
from tests.factories import NOW
from tests.integration.db.rows import LEASE, Rows, failed, grant, late, refreshed
from worker.db import leases
from worker.domain.account import Lease, Status, account_id
from worker.domain.token import Sealed

LATER = NOW + HOUR


def restore(rows: Rows, lease: Lease, **changes: object) -> bool:
    """Write the tokens of a response to this lease. True if they were stored."""
    return bool(rows.persist(late(lease, **changes), now=LATER))


def test_a_late_write_stores_the_same_as_one_on_time(rows: Rows, lease: Lease) -> None:
    """The row is as if there had been no outage, except for the time of the write."""
    rows.persist(failed(lease, status=Status.BLOCKED, claims="{}"))

    assert restore(rows, lease)

    late = rows.row()
    assert late.pop("status_changed_at") == LATER
    rows.sql("DELETE FROM mail_credentials")
    rows.save(grant())
    [lease] = rows.lease_due()
    rows.persist(refreshed(lease), now=LATER)
    assert late | {"status_changed_at": None} == rows.row()


def test_a_late_write_without_a_refresh_token_keeps_the_stored_ones(rows: Rows, lease: Lease) -> None:
    """Tokens that Microsoft has not replaced stay, as in a write that is on time."""
    before = rows.row()

    assert restore(rows, lease, refresh_token=None, replaces=None)

    kept = ("refresh_token", "refresh_token_issued_at")
    after = rows.row()
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert after["access_token"] == b"access 2"


def test_a_late_write_wins_over_a_worker_that_has_taken_the_lease_over(rows: Rows, lease: Lease) -> None:
    """The new holder has used an older refresh token than the one that is delivered."""
    [rival] = rows.lease_due(now=NOW + LEASE)

    assert restore(rows, lease)

    assert rows.persist(refreshed(rival, refresh_token=Sealed(b"of the rival"))) == {}
    assert rows.row()["refresh_token"] == b"refresh 2"


def test_a_late_write_to_a_paused_account_changes_only_its_tokens(rows: Rows, lease: Lease) -> None:
    """The account stays paused, but its stored refresh token has been used and must be replaced."""
    rows.pause()
    before = rows.row()

    assert restore(rows, lease)

    after = rows.row()
    assert (after["refresh_token"], after["access_token"], after["version"]) == (b"refresh 2", b"access 2", 3)
    kept = ("status", "status_changed_at", "refresh_due_at", "lease_id")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert not restore(rows, lease)


def test_a_late_write_is_stored_after_a_pause_and_a_resume(rows: Rows, lease: Lease) -> None:
    """The version has grown by two, and the stored refresh token is still the used one."""
    rows.pause()
    rows.set_status(Status.ACTIVE, due_at=LATER)

    assert restore(rows, lease)

    after = rows.row()
    assert (after["refresh_token"], after["status"], after["version"]) == (b"refresh 2", "active", 4)
    assert after["refresh_due_at"] == refreshed(lease).due_at
    assert not restore(rows, lease)


def test_a_late_write_that_replaces_nothing_loses_against_any_newer_version(rows: Rows, lease: Lease) -> None:
    """No refresh token was used up, and the stored access token may be newer."""
    rows.pause()
    before = rows.row()

    assert not restore(rows, lease, refresh_token=None, replaces=None)

    assert rows.row() == before


def test_a_late_write_is_stored_once(rows: Rows, lease: Lease) -> None:
    """Two workers may drain the outbox at the same time."""
    assert restore(rows, lease)
    assert not restore(rows, lease)
    assert rows.row()["version"] == 2


def test_a_late_write_for_an_account_that_left_oauth_is_no_error(rows: Rows, lease: Lease) -> None:
    """Otherwise the value would stay in the outbox and be logged before every lease."""
    rows.leave_oauth()

    restore(rows, lease)

    assert rows.row()["refresh_due_at"] is None


def test_a_row_that_another_process_writes_is_left_out(rows: Rows, lease: Lease) -> None:
    """Two transactions that write many rows in different orders would wait for each other.

    An account without a row has no lock.
    """
    rows.save(grant(BOB), grant(CAT))
    ids = [account_id(email) for email in (ANN, BOB, CAT, "unknown@contoso.com")]
    with rows.database.begin() as rival, rows.database.begin() as connection:
        assert leases.lock(rival, ids[1:2]) == {ids[1]}

        assert leases.lock(connection, ids) == {ids[0], ids[2]}
