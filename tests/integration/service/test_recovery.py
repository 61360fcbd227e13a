"""Postgres fails between Microsoft's response and the commit: the result waits in the outbox and is stored later."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import stamina

from tests.constants import ANN, BOB, CAT, NOT_PERSISTED, PERSISTED
from tests.integration.installation import Installation
from tests.integration.outboxes import kept
from tests.waiting import wait_for
from worker.cache import OutboxStore
from worker.devkit.emulator import RawAnswer
from worker.devkit.stack import Stack
from worker.domain.account import account_id
from worker.domain.errors import Unavailable
from worker.vault import Purpose

_OUTBOX = "token-worker:outbox"
_DROPPED = "Token from the outbox dropped: a newer one is stored"


def _refresh_into_the_outbox(installation: Installation, stores: Stack, *, answers: int = 1) -> dict[str, int]:
    """Postgres is down when Microsoft's responses arrive, and runs again afterwards."""
    with installation.in_flight(installation.refresh_due, responses=answers) as refresh:
        stores.postgres.stop()
    tally = refresh.result()
    stores.postgres.start()
    return tally


def _outbox(installation: Installation) -> set[str]:
    return {str(account) for account in kept(OutboxStore(installation.services.redis))}


def test_the_next_batch_stores_results_that_postgres_missed(installation: Installation, stores: Stack) -> None:
    """The old tokens are used up and Microsoft is strict here, so no request is repeated and no token is lost.

    A refusal is not kept, because it issued no token and the next request gets it again.
    """
    installation.sign_in(ANN, BOB, CAT, due=True, strict=True)
    installation.emulator.add_fault(RawAnswer(b"", 503), CAT, times=1)

    assert _refresh_into_the_outbox(installation, stores, answers=3) == {"leased": 3, "refreshed": 2}
    assert sorted(installation.logged(NOT_PERSISTED)) == [ANN, BOB, CAT]
    assert _outbox(installation) == {str(account_id(email)) for email in (ANN, BOB)}
    assert installation.logged(PERSISTED) == []

    assert installation.refresh_due() == {"leased": 0}
    assert _outbox(installation) == set()
    assert sorted(installation.logged(PERSISTED)) == [ANN, BOB]
    for email in (ANN, BOB):
        row, entry = installation.account(email), installation.cached(email)
        assert entry
        assert entry.token
        assert (row.version, row.lease_until, row.failure) == (2, None, None)
        assert installation.stored_secret(Purpose.REFRESH_TOKEN, email) == installation.emulator.newest_refresh_token(
            email
        )
        assert (installation.stored_secret(Purpose.ACCESS_TOKEN, email), row.version) == (
            entry.token.value,
            entry.version,
        )
    installation.clock.advance(hours=2)
    assert installation.refresh_due() == {"leased": 3, "refreshed": 3}
    assert installation.emulator.statistics().refreshes == 5


def test_no_secret_is_in_the_outbox_in_plain_text(installation: Installation, stores: Stack) -> None:
    """Redis writes the outbox to disk with its other data."""
    installation.sign_in(ANN, due=True)
    _refresh_into_the_outbox(installation, stores)

    [value] = installation.services.redis.hvals(_OUTBOX)
    assert installation.emulator.newest_refresh_token(ANN).encode() not in value
    assert installation.services.redis.ttl(_OUTBOX) == -1


def test_a_reader_can_deliver_a_pending_result(installation: Installation, stores: Stack) -> None:
    """A reader checks the outbox before it uses the account's refresh token."""
    installation.sign_in(ANN, due=True, strict=True)
    _refresh_into_the_outbox(installation, stores)
    expected = installation.cached()
    installation.services.redis.delete(f"token-worker:entry:{account_id(ANN)}")
    installation.clock.advance(minutes=3)  # the lease has expired, so any process may lease the account

    token = installation.services.tokens.get(ANN)

    assert expected
    assert token == expected.token
    assert installation.requests == 1
    assert _outbox(installation) == set()


def test_a_later_sign_in_wins_over_a_pending_result(installation: Installation, stores: Stack) -> None:
    """The pending result belongs to the old grant, and must not replace the new one."""
    installation.sign_in(ANN, due=True)
    _refresh_into_the_outbox(installation, stores)

    grant = installation.grant(ANN)
    installation.services.accounts.save([grant])
    assert installation.services.tokens.get(ANN).secret == grant.access_token
    installation.refresh_due()

    assert installation.logged(_DROPPED) == [ANN]
    assert _outbox(installation) == set()
    assert installation.stored_secret(Purpose.REFRESH_TOKEN) == grant.refresh_token.reveal()
    assert installation.services.tokens.get(ANN).secret == grant.access_token


def test_a_disconnected_account_stays_disconnected(installation: Installation, stores: Stack) -> None:
    """The user has disconnected the account meanwhile, so late tokens are dropped."""
    installation.sign_in(ANN, due=True)
    _refresh_into_the_outbox(installation, stores)
    installation.services.accounts.disconnect(ANN)

    installation.refresh_due()

    assert _outbox(installation) == set()
    assert installation.stored_secret(Purpose.ACCESS_TOKEN) is None
    entry = installation.cached()
    assert entry is None or entry.token is None


@pytest.mark.parametrize("field", ["not-an-id", "\u00fc", ""])
def test_a_field_that_is_no_account_stops_no_refresh(installation: Installation, field: str) -> None:
    """An unknown field in a shared Redis must not stop the refreshes."""
    installation.sign_in(ANN, due=True)
    installation.services.redis.hset(_OUTBOX, field, "x")

    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}


def test_a_value_of_an_account_without_a_row_stays(installation: Installation, stores: Stack) -> None:
    """Two installations may share one Redis by mistake. Neither may drop the other's tokens."""
    installation.sign_in(ANN, BOB, due=True)
    _refresh_into_the_outbox(installation, stores, answers=2)
    installation.query("DELETE FROM mail_credentials WHERE email = :email", email=ANN)

    installation.refresh_due()

    assert _outbox(installation) == {str(account_id(ANN))}
    assert installation.logged(_DROPPED) == []
    assert installation.account(BOB).version == 2


def test_without_redis_the_worker_waits_for_postgres(installation: Installation, stores: Stack) -> None:
    """The worker cannot put the result into the outbox. It keeps retrying, because it has the only copy."""
    installation.sign_in(ANN, due=True, strict=True)

    with ThreadPoolExecutor(1) as pool, installation.in_flight(installation.refresh_due) as refresh:
        stores.valkey.stop()
        stores.postgres.stop()
        operator = pool.submit(_start_after_a_failed_write_to_the_outbox, installation, stores)
    operator.result()

    assert refresh.result() == {"leased": 1, "refreshed": 1}
    assert installation.logged(PERSISTED) == [ANN]
    assert installation.stored_secret(Purpose.REFRESH_TOKEN) == installation.emulator.newest_refresh_token(ANN)
    stores.valkey.start()
    assert installation.services.tokens.get(ANN).version == 2
    assert installation.requests == 1


def test_no_further_request_is_sent_while_no_result_can_be_stored(installation: Installation, stores: Stack) -> None:
    """Both stores stay down until the retries end. Only the requests in flight are lost, not a whole batch."""
    emails = [f"user{number}@contoso.com" for number in range(6)]
    installation.sign_in(*emails, due=True, strict=True)
    two = installation.another_process(connections=2)

    with (
        stamina.set_testing(True, attempts=1),
        installation.in_flight(two.refresher.refresh_due, responses=2) as refresh,
    ):
        stores.valkey.stop()
        stores.postgres.stop()
    with pytest.raises(Unavailable):
        refresh.result()

    assert installation.requests == 2
    stores.valkey.start()
    stores.postgres.start()
    installation.clock.advance(minutes=3)  # the leases could not be released
    assert installation.refresh_due()["refreshed"] == 4


def _start_after_a_failed_write_to_the_outbox(installation: Installation, stores: Stack) -> None:
    wait_for(
        lambda: any(entry["event"] == "Outbox cannot be written" for entry in list(installation.logs)),
        about="the failed write to the outbox",
        seconds=20,
    )
    stores.postgres.start()


def test_a_restart_of_postgres_meanwhile_costs_nothing(installation: Installation, stores: Stack) -> None:
    """All connections in the pool are dead then, and no write may fail because of that."""
    installation.sign_in(ANN, due=True)

    with installation.in_flight(installation.refresh_due) as refresh:
        stores.postgres.stop()
        stores.postgres.start()

    assert refresh.result() == {"leased": 1, "refreshed": 1}
    assert installation.logged(NOT_PERSISTED) == []
    assert installation.account().version == 2


def test_while_postgres_is_down_no_request_is_sent(installation: Installation, stores: Stack) -> None:
    """No lease can be taken, so no request is sent."""
    installation.sign_in(ANN, due=True)
    stores.postgres.stop()

    with pytest.raises(Unavailable):
        installation.refresh_due()

    assert installation.requests == 0


def test_while_redis_is_down_refreshes_go_on(installation: Installation, stores: Stack) -> None:
    """The outbox cannot be read and the cache cannot be written. Neither is a reason to let tokens expire."""
    installation.sign_in(ANN, due=True)
    stores.valkey.stop()

    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}
    stores.valkey.start()

    assert installation.services.tokens.get(ANN).version == 2
    assert installation.requests == 1


def test_a_backup_of_postgres_can_be_restored(installation: Installation) -> None:
    """As docs/operating.md says, with an empty Redis an old backup serves and refreshes all accounts without a sign-in.

    Without that, each account's next refresh replaces the entry from before, although that has a higher version.
    """
    installation.sign_in(ANN, due=True)
    installation.refresh_due()
    installation.query("CREATE TABLE backup AS SELECT * FROM mail_credentials")
    for _ in range(3):
        installation.clock.advance(hours=1)
        installation.refresh_due()
    installation.query("DELETE FROM mail_credentials")
    installation.query("INSERT INTO mail_credentials SELECT * FROM backup")
    installation.clock.advance(hours=2)
    installation.refresh_due()
    replaced = installation.cached()
    assert replaced
    assert replaced.version == installation.account().version == 3

    installation.services.redis.flushdb()

    token = installation.services.tokens.get(ANN)
    assert (token.version, token.ttl(installation.clock()) > timedelta(minutes=5)) == (
        installation.account().version,
        True,
    )
    installation.clock.advance(hours=2)
    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}
    assert installation.emulator.statistics().failures == 0
