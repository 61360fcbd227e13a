"""Postgres goes away between Microsoft's answer and the commit: what was given waits in the outbox, and comes home."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import stamina

from tests.e2e.installation import wait_for
from tests.integration.outboxes import kept
from tests.integration.service.house import ANN, BOB, CAT, NOT_PERSISTED, PERSISTED, House
from worker.cache import OutboxStore
from worker.devkit.emulator import RawAnswer
from worker.devkit.stack import Stack
from worker.domain.account import account_id
from worker.domain.errors import Unavailable
from worker.vault import Purpose

_OUTBOX = "token-worker:outbox"
_DROPPED = "Token from the outbox dropped: a newer one is stored"


def _refresh_into_the_outbox(house: House, stores: Stack, *, answers: int = 1) -> dict[str, int]:
    """Microsoft answers, Postgres is gone when the answers come, and back afterwards."""
    with house.in_flight(house.services.refresher.refresh_due, answers=answers) as refresh:
        stores.postgres.stop()
    tally = refresh.result()
    stores.postgres.start()
    return tally


def _outbox(house: House) -> set[str]:
    return {str(account) for account in kept(OutboxStore(house.services.redis))}


def test_what_postgres_could_not_take_comes_home_with_the_next_batch(house: House, stores: Stack) -> None:
    """The tokens before are spent, and Microsoft is strict here: nothing is asked for again, and nothing is lost.

    A refusal is not kept: it gave nothing, and will be heard again.
    """
    house.enrol(ANN, BOB, CAT, strict=True)
    house.emulator.add_fault(RawAnswer(b"", 503), CAT, times=1)

    assert _refresh_into_the_outbox(house, stores, answers=3) == {"claimed": 3, "refreshed": 2}
    assert sorted(house.told(NOT_PERSISTED)) == [ANN, BOB, CAT]
    assert _outbox(house) == {str(account_id(email)) for email in (ANN, BOB)}
    assert house.told(PERSISTED) == []

    assert house.services.refresher.refresh_due() == {"claimed": 0}
    assert _outbox(house) == set()
    assert sorted(house.told(PERSISTED)) == [ANN, BOB]
    for email in (ANN, BOB):
        row, entry = house.account(email), house.cached(email)
        assert entry
        assert entry.token
        assert (row.version, row.lease_until, row.failure) == (2, None, None)
        assert house.opened(Purpose.REFRESH_TOKEN, email) == house.emulator.newest_refresh_token(email)
        assert (house.opened(Purpose.ACCESS_TOKEN, email), row.version) == (entry.token.value, entry.version)
    house.clock.advance(hours=2)
    assert house.services.refresher.refresh_due() == {"claimed": 3, "refreshed": 3}
    assert house.emulator.statistics().refreshes == 5


def test_nothing_secret_waits_in_the_clear(house: House, stores: Stack) -> None:
    """The outbox is written to disk with the rest of Redis."""
    house.enrol(ANN)
    _refresh_into_the_outbox(house, stores)

    [value] = house.services.redis.hvals(_OUTBOX)
    assert house.emulator.newest_refresh_token(ANN).encode() not in value
    assert house.services.redis.ttl(_OUTBOX) == -1


def test_a_reader_may_be_the_one_who_brings_it_home(house: House, stores: Stack) -> None:
    """Whoever is about to spend the account's token looks into the outbox first."""
    house.enrol(ANN, strict=True)
    _refresh_into_the_outbox(house, stores)
    expected = house.cached()
    house.services.redis.delete(f"token-worker:entry:{account_id(ANN)}")
    house.clock.advance(minutes=3)  # the lease has run out, and the account is free for all

    token = house.services.tokens.get(ANN)

    assert expected
    assert token == expected.token
    assert house.asked() == 1
    assert _outbox(house) == set()


def test_a_sign_in_since_then_wins(house: House, stores: Stack) -> None:
    """What waits in the outbox is the older grant's, and must not come over the new one."""
    house.enrol(ANN)
    _refresh_into_the_outbox(house, stores)

    grant = house.grant(ANN)
    house.services.accounts.save([grant])
    assert house.services.tokens.get(ANN).secret == grant.access_token
    house.services.refresher.refresh_due()

    assert house.told(_DROPPED) == [ANN]
    assert _outbox(house) == set()
    assert house.opened(Purpose.REFRESH_TOKEN) == grant.refresh_token.reveal()
    assert house.services.tokens.get(ANN).secret == grant.access_token


def test_a_disconnected_account_stays_so(house: House, stores: Stack) -> None:
    """Its user has withdrawn meanwhile; late tokens are thrown away."""
    house.enrol(ANN)
    _refresh_into_the_outbox(house, stores)
    house.services.accounts.disconnect(ANN)

    house.services.refresher.refresh_due()

    assert _outbox(house) == set()
    assert house.opened(Purpose.ACCESS_TOKEN) is None
    entry = house.cached()
    assert entry is None or entry.token is None


@pytest.mark.parametrize("field", ["not-an-id", "\u00fc", ""])
def test_a_field_that_is_no_account_holds_up_nobody(house: House, field: str) -> None:
    """A stray key in a shared Redis must not end all refreshing."""
    house.enrol(ANN)
    house.services.redis.hset(_OUTBOX, field, "x")

    assert house.services.refresher.refresh_due() == {"claimed": 1, "refreshed": 1}


def test_a_value_of_an_account_without_a_row_stays(house: House, stores: Stack) -> None:
    """Two fleets may share one Redis by mistake. Neither may drop the other's tokens."""
    house.enrol(ANN, BOB)
    _refresh_into_the_outbox(house, stores, answers=2)
    house.query("DELETE FROM mail_credentials WHERE email = :email", email=ANN)

    house.services.refresher.refresh_due()

    assert _outbox(house) == {str(account_id(ANN))}
    assert house.told(_DROPPED) == []
    assert house.account(BOB).version == 2


def test_without_redis_too_the_answer_waits_for_postgres(house: House, stores: Stack) -> None:
    """Nowhere to put it down: whoever has it holds on, because there is no other copy in the world."""
    house.enrol(ANN, strict=True)

    with ThreadPoolExecutor(1) as pool, house.in_flight(house.services.refresher.refresh_due) as refresh:
        stores.valkey.stop()
        stores.postgres.stop()
        operator = pool.submit(_start_when_the_outbox_is_missed, house, stores)
    operator.result()

    assert refresh.result() == {"claimed": 1, "refreshed": 1}
    assert house.told(PERSISTED) == [ANN]
    assert house.opened(Purpose.REFRESH_TOKEN) == house.emulator.newest_refresh_token(ANN)
    stores.valkey.start()
    assert house.services.tokens.get(ANN).version == 2
    assert house.asked() == 1


def test_what_cannot_be_put_anywhere_is_asked_for_no_more(house: House, stores: Stack) -> None:
    """Both stores stay away until all patience is used up: that costs what was under way, and not a batch."""
    emails = [f"user{number}@contoso.com" for number in range(6)]
    house.enrol(*emails, strict=True)
    two = house.another(connections=2)

    with (
        stamina.set_testing(True, attempts=1),
        house.in_flight(two.refresher.refresh_due, answers=2) as refresh,
    ):
        stores.valkey.stop()
        stores.postgres.stop()
    with pytest.raises(Unavailable):
        refresh.result()

    assert house.asked() == 2
    stores.valkey.start()
    stores.postgres.start()
    house.clock.advance(minutes=3)  # nobody could give back what had been claimed
    assert house.services.refresher.refresh_due()["refreshed"] == 4


def _start_when_the_outbox_is_missed(house: House, stores: Stack) -> None:
    wait_for(
        lambda: any(entry["event"] == "Outbox cannot be written" for entry in list(house.logs)),
        about="the outbox to be missed",
        seconds=20,
    )
    stores.postgres.start()


def test_a_restart_of_postgres_meanwhile_costs_nothing(house: House, stores: Stack) -> None:
    """All connections in the pool are dead then, and none of them is written to in vain."""
    house.enrol(ANN)

    with house.in_flight(house.services.refresher.refresh_due) as refresh:
        stores.postgres.stop()
        stores.postgres.start()

    assert refresh.result() == {"claimed": 1, "refreshed": 1}
    assert house.told(NOT_PERSISTED) == []
    assert house.account().version == 2


def test_while_postgres_is_away_nothing_is_spent(house: House, stores: Stack) -> None:
    """Without a claim there is no question."""
    house.enrol(ANN)
    stores.postgres.stop()

    with pytest.raises(Unavailable):
        house.services.refresher.refresh_due()

    assert house.asked() == 0


def test_while_redis_is_away_refreshing_goes_on(house: House, stores: Stack) -> None:
    """The outbox cannot be looked into and the cache not written, and neither is a reason to let tokens expire."""
    house.enrol(ANN)
    stores.valkey.stop()

    assert house.services.refresher.refresh_due() == {"claimed": 1, "refreshed": 1}
    stores.valkey.start()

    assert house.services.tokens.get(ANN).version == 2
    assert house.asked() == 1


def test_a_backup_of_postgres_can_be_restored(house: House) -> None:
    """As docs/operating.md says: with Redis emptied, an old backup serves and refreshes all, and nobody signs in.

    The counter-proof is the entry from before: Redis does not replace it by an older one.
    """
    house.enrol(ANN)
    house.services.refresher.refresh_due()
    house.query("CREATE TABLE backup AS SELECT * FROM mail_credentials")
    for _ in range(3):
        house.clock.advance(hours=1)
        house.services.refresher.refresh_due()
    before = house.cached()
    house.query("DELETE FROM mail_credentials")
    house.query("INSERT INTO mail_credentials SELECT * FROM backup")
    house.clock.advance(hours=2)
    house.services.refresher.refresh_due()
    assert house.cached() == before

    house.services.redis.flushdb()

    token = house.services.tokens.get(ANN)
    assert (token.version, token.ttl(house.clock()) > timedelta(minutes=5)) == (house.account().version, True)
    house.clock.advance(hours=2)
    assert house.services.refresher.refresh_due() == {"claimed": 1, "refreshed": 1}
    assert house.emulator.statistics().failures == 0
