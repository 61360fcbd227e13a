"""What the outbox delivers after an outage of Postgres: the same compare-and-swap, without a lease."""

from tests.constants import ANN, BOB, CAT, HOUR
from tests.factories import NOW
from tests.integration.db.rows import LEASE, Rows, failed, grant, late, refreshed
from worker.db import leases
from worker.domain.account import Lease, Status, account_id
from worker.domain.token import Sealed

LATER = NOW + HOUR


def restore(rows: Rows, claim: Lease, **changes: object) -> bool:
    """Whether the tokens of a response to this lease are written now."""
    return bool(rows.persist(late(claim, **changes), now=LATER))


def test_a_late_write_stores_what_was_due_to_be_stored(rows: Rows, claim: Lease) -> None:
    """After an outage of the database the row is as if it had not happened, but for when it was written."""
    rows.persist(failed(claim, status=Status.BLOCKED, claims="{}"))

    assert restore(rows, claim)

    late = rows.row()
    assert late.pop("status_changed_at") == LATER
    rows.sql("DELETE FROM mail_credentials")
    rows.save(grant())
    [claim] = rows.claim()
    rows.persist(refreshed(claim), now=LATER)
    assert late | {"status_changed_at": None} == rows.row()


def test_a_late_write_without_a_refresh_token_keeps_the_stored_ones(rows: Rows, claim: Lease) -> None:
    """As in time: what Microsoft did not replace stays."""
    before = rows.row()

    assert restore(rows, claim, refresh_token=None, replaces=None)

    kept = ("refresh_token", "refresh_token_issued_at")
    after = rows.row()
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert after["access_token"] == b"access 2"


def test_a_late_write_wins_over_whoever_has_taken_the_lease_over(rows: Rows, claim: Lease) -> None:
    """The holder has spent an older token than the one that comes home."""
    [rival] = rows.claim(now=NOW + LEASE)

    assert restore(rows, claim)

    assert rows.persist(refreshed(rival, refresh_token=Sealed(b"of the rival"))) == {}
    assert rows.row()["refresh_token"] == b"refresh 2"


def test_a_late_write_brings_a_paused_account_its_tokens_and_nothing_else(rows: Rows, claim: Lease) -> None:
    """It stays paused, as an operator said; but the refresh token it holds has been spent."""
    rows.pause()
    before = rows.row()

    assert restore(rows, claim)

    after = rows.row()
    assert (after["refresh_token"], after["access_token"], after["version"]) == (b"refresh 2", b"access 2", 3)
    kept = ("status", "status_changed_at", "refresh_due_at", "lease_id")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert not restore(rows, claim)


def test_a_late_write_finds_its_account_paused_and_resumed(rows: Rows, claim: Lease) -> None:
    """Two versions on, and still with the refresh token that was spent."""
    rows.pause()
    rows.set_status(Status.ACTIVE, due_at=LATER)

    assert restore(rows, claim)

    after = rows.row()
    assert (after["refresh_token"], after["status"], after["version"]) == (b"refresh 2", "active", 4)
    assert after["refresh_due_at"] == refreshed(claim).due_at
    assert not restore(rows, claim)


def test_a_late_write_that_replaces_nothing_loses_against_any_newer_version(rows: Rows, claim: Lease) -> None:
    """Its refresh token was not spent for good, and the access token that is stored may be the newer one."""
    rows.pause()
    before = rows.row()

    assert not restore(rows, claim, refresh_token=None, replaces=None)

    assert rows.row() == before


def test_a_late_write_comes_home_once(rows: Rows, claim: Lease) -> None:
    """Two workers may drain the outbox at the same time."""
    assert restore(rows, claim)
    assert not restore(rows, claim)
    assert rows.row()["version"] == 2


def test_a_late_write_for_an_account_that_left_oauth_is_no_error(rows: Rows, claim: Lease) -> None:
    """Or it would stay in the outbox, and be complained about at every claim, for ever."""
    rows.leave_oauth()

    restore(rows, claim)

    assert rows.row()["refresh_due_at"] is None


def test_a_row_that_another_process_writes_is_left_out(rows: Rows, claim: Lease) -> None:
    """Two that write many rows in different orders would wait for each other. An account without a row has no lock."""
    rows.save(grant(BOB), grant(CAT))
    ids = [account_id(email) for email in (ANN, BOB, CAT, "unknown@contoso.com")]
    with rows.database.begin() as rival, rows.database.begin() as connection:
        assert leases.lock(rival, ids[1:2]) == {ids[1]}

        assert leases.lock(connection, ids) == {ids[0], ids[2]}
