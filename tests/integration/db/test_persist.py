"""Results are written with compare-and-swap, so that a late write never replaces newer tokens."""

from datetime import timedelta

import pytest

from tests.constants import ANN, BOB, CAT, HOUR
from tests.factories import NOW
from tests.integration.db.rows import FAILURE, LEASE, Overtake, Rows, failed, grant, late, refreshed
from worker.domain.account import Lease, Status, account_id
from worker.domain.token import Sealed

LATER = NOW + HOUR


def test_new_tokens_and_their_metadata_are_stored_together(rows: Rows, lease: Lease) -> None:
    """One statement writes all of it, so a reader sees either the old state or the new one."""
    assert rows.persist(refreshed(lease), now=LATER) == {lease.account_id: 2}

    row = rows.row()
    assert (row["access_token"], row["token_obtained_at"], row["token_expiry"]) == (
        b"access 2",
        LATER,
        LATER + HOUR,
    )
    assert row["refresh_token"] == b"refresh 2"
    assert (row["refresh_token_issued_at"], row["last_refreshed_at"], row["updated_at"]) == (LATER, LATER, LATER)
    assert (row["version"], row["status"], row["refresh_due_at"]) == (2, "active", NOW + 1.6 * HOUR)
    assert row["created_at"] == NOW


def test_a_response_without_a_refresh_token_keeps_the_old_one_and_its_age(rows: Rows, lease: Lease) -> None:
    """Microsoft does not always rotate the refresh token. The 90 days then count from the last rotation."""
    before = rows.row()

    rows.persist(refreshed(lease, refresh_token=None, replaces=None))

    kept = ("refresh_token", "refresh_token_issued_at")
    after = rows.row()
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert (after["access_token"], after["version"]) == (b"access 2", 2)


def test_a_failure_changes_no_token_and_no_version(rows: Rows, lease: Lease) -> None:
    """The old access token is served while it lives, and cached copies stay valid."""
    tokens = ("access_token", "refresh_token", "token_obtained_at", "token_expiry", "last_refreshed_at", "version")
    before = rows.row()

    assert rows.persist(failed(lease, status=Status.REAUTH_REQUIRED, claims='{"access_token":{}}')) == {
        lease.account_id: 1
    }

    after, account = rows.row(), rows.find()
    assert {name: after[name] for name in tokens} == {name: before[name] for name in tokens}
    assert (account.status, account.failure, account.claims) == (
        Status.REAUTH_REQUIRED,
        FAILURE,
        '{"access_token":{}}',
    )
    assert account.due_at == NOW + timedelta(seconds=30)


def test_new_tokens_end_a_streak_of_failures(rows: Rows, lease: Lease) -> None:
    """A left-over failure would cause a needless back-off or sign-in."""
    rows.persist(failed(lease, status=Status.REAUTH_REQUIRED, claims="{}", due_at=NOW))
    [second] = rows.lease_due()

    rows.persist(refreshed(second))

    row = rows.row()
    failure = ("failure_kind", "failure_code", "failing_since", "failure_claims")
    assert [row[name] for name in failure] == [None] * 4
    assert (row["failure_count"], row["status"]) == (0, "active")


@pytest.mark.parametrize("overtake", [Rows.take_over, Rows.sign_in, Rows.pause, Rows.disconnect])
def test_a_failure_that_was_overtaken_is_discarded(rows: Rows, lease: Lease, overtake: Overtake) -> None:
    """Another worker holds the lease by now, the user has signed in again, or an operator has intervened."""
    overtake(rows)
    before = rows.row()

    assert rows.persist(failed(lease)) == {}

    assert rows.row() == before


@pytest.mark.parametrize("overtake", [Rows.sign_in, Rows.disconnect])
@pytest.mark.parametrize("lease_id", ["of the lease", None])
def test_new_tokens_lose_against_a_sign_in_and_a_disconnect(
    rows: Rows, lease: Lease, overtake: Overtake, lease_id: str | None
) -> None:
    """A write on time, or hours late from the outbox, must not restore replaced or erased tokens."""
    overtake(rows)
    before = rows.row()

    assert rows.persist(late(lease) if lease_id is None else refreshed(lease)) == {}

    assert rows.row() == before


def test_a_lease_allows_one_write(rows: Rows, lease: Lease) -> None:
    """A write that is repeated because the confirmation of its commit was lost changes nothing."""
    for update in (failed(lease), refreshed(lease)):
        rows.persist(update)
        before = rows.row()

        assert rows.persist(update) == {}

        assert rows.row() == before


def test_new_tokens_win_over_a_worker_that_has_taken_the_lease_over(rows: Rows, lease: Lease) -> None:
    """The other worker has used an older refresh token than the one that arrives late."""
    [rival] = rows.lease_due(now=NOW + LEASE)
    assert rival.version == lease.version

    assert rows.persist(refreshed(lease)) == {lease.account_id: 2}
    assert rows.persist(refreshed(rival, refresh_token=Sealed(b"of the rival"))) == {}
    assert rows.row()["refresh_token"] == b"refresh 2"


def test_a_write_under_the_lease_needs_the_version(rows: Rows, lease: Lease) -> None:
    """A manual statement that changes the version and keeps the lease has stored newer values."""
    rows.sql("UPDATE mail_credentials SET version = version + 1")

    assert rows.persist(failed(lease)) == {}


def test_a_group_is_written_at_once_with_the_values_of_each_row(rows: Rows) -> None:
    """Successes, failures and lost swaps are in one group. The return value names the accounts that were written."""
    rows.save(grant(ANN), grant(BOB), grant(CAT))
    held = {lease.email: lease for lease in rows.lease_due()}
    rows.save(grant(CAT, refresh_token=Sealed(b"of a sign-in")))

    written = rows.persist(refreshed(held[ANN], access_token=Sealed(b"ann's")), failed(held[BOB]), refreshed(held[CAT]))

    assert written == {account_id(ANN): 2, account_id(BOB): 1}
    assert [rows.row(email)["access_token"] for email in (ANN, BOB, CAT)] == [b"ann's", b"access 1", b"access 1"]
    assert [rows.find(email).failure for email in (ANN, BOB, CAT)] == [None, FAILURE, None]


def test_an_account_that_left_oauth_meanwhile_does_not_affect_its_group(rows: Rows) -> None:
    """The product may set use_oauth to false while a refresh is in flight.

    The result is then dropped without an error.
    """
    rows.save(grant(ANN), grant(BOB))
    held = {lease.email: lease for lease in rows.lease_due()}
    rows.leave_oauth(BOB)

    rows.persist(refreshed(held[ANN]), refreshed(held[BOB]))

    assert rows.row(ANN)["refresh_token"] == b"refresh 2"
    assert rows.row(BOB)["refresh_due_at"] is None
