"""Writing answers back: compare and swap, so that the newest tokens stay whoever comes late."""

from datetime import timedelta

import pytest

from tests.constants import ANN, BOB, CAT, HOUR
from tests.factories import NOW
from tests.integration.db.rows import FAILURE, LEASE, Overtake, Rows, failed, grant, late, refreshed
from worker.domain.account import Lease, Status, account_id
from worker.domain.token import Sealed

LATER = NOW + HOUR


def test_new_tokens_are_stored_together_with_all_that_belongs_to_them(rows: Rows, claim: Lease) -> None:
    """One statement: a reader sees the old state or the new one."""
    assert rows.persist(refreshed(claim), now=LATER) == {claim.account_id: 2}

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


def test_an_answer_without_a_refresh_token_keeps_the_old_one_and_its_age(rows: Rows, claim: Lease) -> None:
    """Microsoft does not always rotate; the 90 days then count from when it last did."""
    before = rows.row()

    rows.persist(refreshed(claim, refresh_token=None, replaces=None))

    kept = ("refresh_token", "refresh_token_issued_at")
    after = rows.row()
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert (after["access_token"], after["version"]) == (b"access 2", 2)


def test_a_failure_changes_no_token_and_no_version(rows: Rows, claim: Lease) -> None:
    """The old access token is served while it lives, and cached copies stay good."""
    tokens = ("access_token", "refresh_token", "token_obtained_at", "token_expiry", "last_refreshed_at", "version")
    before = rows.row()

    assert rows.persist(failed(claim, status=Status.REAUTH_REQUIRED, claims='{"access_token":{}}')) == {
        claim.account_id: 1
    }

    after, account = rows.row(), rows.find()
    assert {name: after[name] for name in tokens} == {name: before[name] for name in tokens}
    assert (account.status, account.failure, account.claims) == (
        Status.REAUTH_REQUIRED,
        FAILURE,
        '{"access_token":{}}',
    )
    assert account.due_at == NOW + timedelta(seconds=30)


def test_new_tokens_end_a_streak_of_failures(rows: Rows, claim: Lease) -> None:
    """All of it: a leftover would back off, or ask for a sign-in, for no reason."""
    rows.persist(failed(claim, status=Status.REAUTH_REQUIRED, claims="{}", due_at=NOW))
    [second] = rows.claim()

    rows.persist(refreshed(second))

    row = rows.row()
    failure = ("failure_kind", "failure_code", "failing_since", "failure_claims")
    assert [row[name] for name in failure] == [None] * 4
    assert (row["failure_count"], row["status"]) == (0, "active")


@pytest.mark.parametrize("overtake", [Rows.take_over, Rows.sign_in, Rows.pause, Rows.disconnect])
def test_a_failure_that_was_overtaken_is_discarded(rows: Rows, claim: Lease, overtake: Overtake) -> None:
    """Another worker holds the lease by now, the user has signed in again, or an operator has intervened."""
    overtake(rows)
    before = rows.row()

    assert rows.persist(failed(claim)) == {}

    assert rows.row() == before


@pytest.mark.parametrize("overtake", [Rows.sign_in, Rows.disconnect])
@pytest.mark.parametrize("lease_id", ["of the lease", None])
def test_new_tokens_lose_against_a_sign_in_and_a_disconnect(
    rows: Rows, claim: Lease, overtake: Overtake, lease_id: str | None
) -> None:
    """In time or hours late from the outbox, they must not bring back what was replaced or erased."""
    overtake(rows)
    before = rows.row()

    assert rows.persist(late(claim) if lease_id is None else refreshed(claim)) == {}

    assert rows.row() == before


def test_a_claim_is_spent_once(rows: Rows, claim: Lease) -> None:
    """A repeated write, after a commit whose confirmation got lost, changes nothing."""
    for update in (failed(claim), refreshed(claim)):
        rows.persist(update)
        before = rows.row()

        assert rows.persist(update) == {}

        assert rows.row() == before


def test_new_tokens_win_over_the_worker_that_has_taken_the_lease_over(rows: Rows, claim: Lease) -> None:
    """That worker has spent an older refresh token than the one that comes late."""
    [rival] = rows.claim(now=NOW + LEASE)
    assert rival.version == claim.version

    assert rows.persist(refreshed(claim)) == {claim.account_id: 2}
    assert rows.persist(refreshed(rival, refresh_token=Sealed(b"of the rival"))) == {}
    assert rows.row()["refresh_token"] == b"refresh 2"


def test_a_write_under_the_lease_needs_the_version(rows: Rows, claim: Lease) -> None:
    """A statement by hand that moves the version and leaves the lease alone has stored something newer."""
    rows.sql("UPDATE mail_credentials SET version = version + 1")

    assert rows.persist(failed(claim)) == {}


def test_a_group_is_written_at_once_each_row_with_its_own_values(rows: Rows) -> None:
    """Successes, failures and lost swaps come mixed; the answer names those that were written."""
    rows.save(grant(ANN), grant(BOB), grant(CAT))
    claims = {claim.email: claim for claim in rows.claim()}
    rows.save(grant(CAT, refresh_token=Sealed(b"of a sign-in")))

    written = rows.persist(
        refreshed(claims[ANN], access_token=Sealed(b"ann's")), failed(claims[BOB]), refreshed(claims[CAT])
    )

    assert written == {account_id(ANN): 2, account_id(BOB): 1}
    assert [rows.row(email)["access_token"] for email in (ANN, BOB, CAT)] == [b"ann's", b"access 1", b"access 1"]
    assert [rows.find(email).failure for email in (ANN, BOB, CAT)] == [None, FAILURE, None]


def test_an_account_that_left_oauth_meanwhile_does_not_spoil_its_group(rows: Rows) -> None:
    """The product may turn use_oauth off while a refresh is in flight: one more way to be overtaken, and no error."""
    rows.save(grant(ANN), grant(BOB))
    claims = {claim.email: claim for claim in rows.claim()}
    rows.leave_oauth(BOB)

    rows.persist(refreshed(claims[ANN]), refreshed(claims[BOB]))

    assert rows.row(ANN)["refresh_token"] == b"refresh 2"
    assert rows.row(BOB)["refresh_due_at"] is None
